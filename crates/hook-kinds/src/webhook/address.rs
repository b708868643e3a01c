//! Addresses that webhooks may call.
//!
//! A webhook is a request from inside the operator's network with a target that a caller chooses,
//! e.g. the metadata service of a cloud, or a service that trusts its network. Names are resolved
//! here, and the connection goes to an address that was checked: a name that resolves to another
//! address a moment later gains nothing.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tidewater_common::address_kind::AddressKind;
use url::{Host, Url};

/// Remedy of refused addresses.
const REMEDY: &str = "start the nodes with --allow-private-webhooks to allow it";

/// Checks a URL whose host is an address. Names are checked when they are resolved.
pub(super) fn check_host(url: &Url, allow_private: bool) -> Result<(), String> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if allow_private || AddressKind::of(address).is_public() {
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
        found.partition(|address| allow_private || AddressKind::of(address.ip()).is_public());
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
