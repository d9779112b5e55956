//! Keeps requests that strangers shaped away from our own network (server-side request forgery).
//!
//! Names are no evidence: a public name may resolve to `127.0.0.1`, and to another address the next
//! time it is asked. So the check stands between resolving and connecting, and looks at the very
//! addresses that are connected to next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Whether an address belongs to the public internet: neither this machine nor any private, shared,
/// link-local or special range (the IANA special-purpose registries).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // This network, shared address space, protocol assignments, benchmarking, reserved.
        || a == 0
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // Mapped, and translated by NAT64: an IPv4 address in other clothes.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo, documentation.
        [0x2001, 0 | 0xdb8, ..] => false,
        // What is not global unicast is ours, or nobody's.
        _ => parts[0] & 0xe000 == 0x2000,
    }
}

/// Resolves names; with `public_only`, refuses those that lead to addresses of ours.
#[derive(Debug)]
pub(crate) struct Guard<R = DefaultResolver> {
    pub(crate) public_only: bool,
    names: R,
}

/// What was refused: told to whoever made the request.
#[derive(Debug, thiserror::Error)]
#[error("leads to {0}, an address that is not public")]
pub(crate) struct NotPublic(pub(crate) IpAddr);

impl Guard {
    pub(crate) fn new(public_only: bool) -> Self {
        let names = DefaultResolver::default();
        Self { public_only, names }
    }
}

impl<R: Resolver> Guard<R> {
    /// An address that needs no resolving.
    fn literal(&self, uri: &Uri) -> Option<ResolvedSocketAddrs> {
        let address = literal(uri.host()?)?;
        let usual = if uri.scheme_str()? == "https" {
            443
        } else {
            80
        };
        let mut found = self.names.empty();
        found.push(SocketAddr::new(address, uri.port_u16().unwrap_or(usual)));
        Some(found)
    }
}

/// The address that a host's text is, if it is one.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

impl<R: Resolver> Resolver for Guard<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = match self.literal(uri) {
            Some(found) => found,
            None => self.names.resolve(uri, config, timeout)?,
        };
        // One private address among public ones is no accident.
        let private = found.iter().map(SocketAddr::ip).find(|ip| !is_public(*ip));
        match private.filter(|_| self.public_only) {
            Some(address) => Err(ureq::Error::Other(Box::new(NotPublic(address)))),
            None => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ureq::unversioned::transport::time::Duration;

    use super::*;

    /// S11.
    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for ours in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "::7f00:1",
        ] {
            assert!(!is_public(ours.parse().unwrap()), "{ours}");
        }
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::",
            "2001:4860::8888",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    /// A name whose owner answers with another address each time.
    #[derive(Debug)]
    struct Rebinding(Mutex<Vec<&'static str>>);

    impl Resolver for Rebinding {
        fn resolve(
            &self,
            _: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut found = self.empty();
            let answer = self.0.lock().unwrap().remove(0);
            for address in answer.split(' ') {
                found.push(SocketAddr::new(address.parse().unwrap(), 80));
            }
            Ok(found)
        }
    }

    /// S11, F08, K07: what is connected to is what was looked at, since a name is asked once for both.
    #[test]
    fn a_name_that_leads_elsewhere_the_next_time_is_looked_at_again() {
        let answers = vec!["1.1.1.1", "127.0.0.1", "1.1.1.1 10.0.0.1", "1.1.1.1"];
        let names = Rebinding(Mutex::new(answers));
        let guard = Guard {
            public_only: true,
            names,
        };
        let uri: Uri = "http://rebinding.example/".parse().unwrap();
        let timeout = NextTimeout {
            after: Duration::NotHappening,
            reason: ureq::Timeout::Resolve,
            per_read: None,
            per_write: None,
        };
        let ask = || {
            let config = ureq::Agent::config_builder().build();
            let found = guard.resolve(&uri, &config, timeout);
            let left = guard.names.0.lock().unwrap().len();
            (found.map(|found| found[0].ip().to_string()).ok(), left)
        };
        assert_eq!(ask(), (Some("1.1.1.1".to_owned()), 3));
        assert_eq!(ask(), (None, 2));
        assert_eq!(ask(), (None, 1), "one private address among public ones");
        assert_eq!(ask(), (Some("1.1.1.1".to_owned()), 0));
    }
}
