//! Every bound of the HTTP client in one place, with the relations between them.

use std::time::Duration;

/// Redirects that are followed for one request.
pub const REDIRECTS_MAX: u32 = 5;

/// A response's head: more is an answer we do not want.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A response's body where nobody says otherwise, counted after decompression.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// One request with everything it takes (name, connection, redirects, body), where nobody says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that may be asked for.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// From the name to a connection that may be written to.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections a client keeps open and unused, in all and to one host.
pub const IDLE_CONNECTIONS: usize = 8;
/// See [`IDLE_CONNECTIONS`].
pub const IDLE_CONNECTIONS_PER_HOST: usize = 4;

/// How long such a connection is kept. Shorter than what servers commonly give, since a connection
/// that is closed under a request costs that request.
pub const IDLE_TIME: Duration = Duration::from_secs(15);

/// The longest wait that `Retry-After` is believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

const _: () = {
    assert!(CONNECT_TIMEOUT.as_millis() <= TIMEOUT.as_millis());
    assert!(TIMEOUT.as_millis() <= TIMEOUT_MAX.as_millis());
    assert!(IDLE_CONNECTIONS_PER_HOST <= IDLE_CONNECTIONS);
};
