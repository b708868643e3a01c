//! Kinds of IP addresses: the one table of special-purpose addresses, for limits of calls to hosts that callers choose.
//!
//! The sources are the IANA special-purpose address registries for IPv4 and IPv6, and the documentation of clouds for the
//! addresses of their metadata services. An IPv6 address that embeds an IPv4 address reaches that address where such a
//! translator or tunnel exists, so it has the kind of that address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Kind of an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// Address on the public internet.
    Public,
    /// Address of a private network: private, shared, unique local or site-local.
    Private,
    /// Address that names no host: 0.0.0.0/8, ::.
    Unspecified,
    /// Address of the machine itself.
    Loopback,
    /// Address of the local link: also the metadata services of most clouds.
    LinkLocal,
    /// Address of a group of hosts.
    Multicast,
    /// Reserved IPv4 address: 240.0.0.0/4, with the broadcast address.
    Reserved,
    /// Address of a metadata service that is not link-local.
    Metadata,
    /// Other address that is not public: documentation, benchmarks, protocol assignments, unassigned IPv6 addresses.
    Other,
}

impl AddressKind {
    /// Returns the kind of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::classify_v4(address),
            IpAddr::V6(address) => Self::classify_v6(address),
        }
    }

    /// Returns whether an address of this kind is reachable on the public internet.
    #[must_use]
    pub fn is_public(self) -> bool {
        self == Self::Public
    }

    /// Returns whether an address of this kind is special: it reaches the machine itself, its link or its cloud, or no
    /// single host. Addresses of private networks are not special: databases usually have them.
    #[must_use]
    pub fn is_special(self) -> bool {
        match self {
            Self::Unspecified
            | Self::Loopback
            | Self::LinkLocal
            | Self::Multicast
            | Self::Reserved
            | Self::Metadata => true,
            Self::Public | Self::Private | Self::Other => false,
        }
    }

    fn classify_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            // Those of Alibaba Cloud, Azure and Oracle Cloud.
            [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Self::Metadata,
            [10, ..] | [100, 64..=127, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            // Protocol assignments, documentation, 6to4 relays.
            [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
                Self::Other
            }
            // Benchmarks.
            [198, 18 | 19, ..] => Self::Other,
            [224..=239, ..] => Self::Multicast,
            [240..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn classify_v6(address: Ipv6Addr) -> Self {
        let embedded = |high: u16, low: u16| {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Self::classify_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // NAT64, 6to4.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
            // IPv4-compatible, IPv4-translated and NAT64 of the local network: the public internet has no such address.
            [0, 0, 0, 0, 0, 0, high, low]
            | [0, 0, 0, 0, 0xffff, 0, high, low]
            | [0x64, 0xff9b, 1, _, _, _, high, low] => match embedded(high, low) {
                Self::Public => Self::Other,
                kind => kind,
            },
            // Those of AWS and Google Cloud.
            [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Self::Metadata,
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // Teredo, benchmarks, ORCHID and other protocol assignments; documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Other,
            // Only these are global unicast addresses.
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Other,
        }
    }
}

/// Noun phrase for messages: "a loopback address".
impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Private => "an address of a private network",
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::Metadata => "the address of a metadata service",
            Self::Other => "an address that is not globally reachable",
        })
    }
}

#[cfg(test)]
mod tests;
