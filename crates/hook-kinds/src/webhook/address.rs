//! Addresses that webhooks may call.
//!
//! A webhook is a request from inside the operator's network with a target that a caller chooses,
//! e.g. the metadata service of a cloud, or a service that trusts its network. Names are resolved
//! here, and the connection goes to an address that was checked: a name that resolves to another
//! address a moment later gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Remedy of refused addresses.
const REMEDY: &str = "start the nodes with --allow-private-webhooks to allow it";

/// Returns whether an address is reachable on the public internet: neither private, loopback,
/// link-local, shared, multicast, reserved, nor one that embeds such an IPv4 address.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IANA IPv4 Special-Purpose Address Registry.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b) {
        (0 | 10 | 127, _) => true,
        (100, 64..=127) => true,
        (169, 254) | (192, 168) => true,
        (172, 16..=31) => true,
        // Protocol assignments, documentation, 6to4 relays.
        (192, 0) => c == 0 || c == 2,
        (192, 88) => c == 99,
        (198, 18 | 19) => true,
        (198, 51) => c == 100,
        (203, 0) => c == 113,
        // Multicast, reserved, broadcast.
        (224.., _) => true,
        _ => false,
    };
    !is_special
}

/// IANA IPv6 Special-Purpose Address Registry: only 2000::/3 is global unicast.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let [a, b, c, d, .., y, z] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // NAT64.
        (0x64, 0xff9b) => c == 0 && d == 0 && embedded(y, z),
        // Teredo, benchmarks, ORCHID and other protocol assignments; documentation.
        (0x2001, 0..=0x1ff | 0xdb8) => false,
        // 6to4.
        (0x2002, _) => embedded(b, c),
        // Documentation.
        (0x3fff, 0..=0xfff) => false,
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

/// Checks a URL whose host is an address. Names are checked when they are resolved.
pub(super) fn check_host(url: &Url, allow_private: bool) -> Result<(), String> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if allow_private || is_public(address) {
        return Ok(());
    }
    Err(format!("the url names {address}, which is not a public address: {REMEDY}"))
}

/// Returns the addresses of a name that a webhook may connect to; an error if there are none.
fn allowed(
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, String> {
    let (allowed, refused): (Vec<_>, Vec<_>) =
        found.partition(|address| allow_private || is_public(address.ip()));
    match (allowed.is_empty(), refused.first()) {
        (false, _) => Ok(allowed),
        (true, None) => Err(format!("{name} has no address")),
        (true, Some(address)) => {
            let address = address.ip();
            Err(format!("{name} is {address}, which is not a public address: {REMEDY}"))
        }
    }
}

/// Resolver of the names of webhooks.
#[derive(Debug, Clone, Copy)]
pub(super) struct WebhookResolver {
    pub(super) allow_private: bool,
}

impl Resolve for WebhookResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = allowed(name.as_str(), found, allow_private)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "193.0.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn url_with_a_private_address_needs_permission() {
        for (text, expected) in [
            ("http://127.0.0.1/", false),
            ("http://2130706433/", false),
            ("http://0x7f.1/", false),
            ("http://[::1]:80/", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("http://8.8.8.8/", true),
            ("http://example.org/", true),
        ] {
            let url = text.parse().unwrap();
            assert_eq!(check_host(&url, false).is_ok(), expected, "{text}");
            assert!(check_host(&url, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn names_yield_only_public_addresses() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
        };
        let mixed = addresses(&["10.0.0.1", "8.8.8.8"]);
        assert_eq!(allowed("x", mixed.iter().copied(), false), Ok(addresses(&["8.8.8.8"])));
        assert_eq!(allowed("x", mixed.iter().copied(), true), Ok(mixed));
        let private = allowed("x", addresses(&["10.0.0.1"]).into_iter(), false).unwrap_err();
        assert!(private.contains("10.0.0.1") && private.contains("--allow-private"), "{private}");
        assert!(allowed("x", [].into_iter(), true).is_err());
    }
}
