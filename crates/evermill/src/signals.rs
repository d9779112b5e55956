//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use crossbeam_channel::{Receiver, TrySendError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, INTERRUPTED};

/// Catches SIGHUP from now on; the receiver hears of it, once for several that come together.
///
/// # Errors
/// When the system refuses to have it caught.
pub(crate) fn catch_hang_up() -> Result<Receiver<()>, Failure> {
    let refused = |cause| Failure::failed(format!("cannot catch SIGHUP: {cause}"));
    let mut signals = Signals::new([SIGHUP]).map_err(refused)?;
    let (tell, heard) = bounded(1);
    let listen = move || {
        for _ in signals.forever() {
            // One that waits says it all.
            if let Err(TrySendError::Disconnected(())) = tell.try_send(()) {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("hang-up".into())
        .spawn(listen)
        .map_err(refused)?;
    Ok(heard)
}

/// Catches both signals from now on. The receiver hears of the first one; the second ends the
/// process with [`INTERRUPTED`].
///
/// # Errors
/// When the system refuses to have them caught.
pub(crate) fn catch() -> Result<Receiver<()>, Failure> {
    let refused = |cause| Failure::failed(format!("cannot catch SIGTERM and SIGINT: {cause}"));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
    let (first, heard) = bounded(1);
    let listen = move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(INTERRUPTED);
            }
            if first.try_send(()).is_err() {
                // Nobody listens any more: the process is ending already.
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
        .map_err(refused)?;
    Ok(heard)
}
