//! Network of a caller, for limits that no single machine may use up.

use std::net::IpAddr;

/// An IPv4 address, or an IPv6 network of 64 bits, which is what one machine usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerNetwork {
    /// An address.
    V4([u8; 4]),
    /// The first 64 bits of an address.
    V6([u16; 4]),
}

impl From<IpAddr> for PeerNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_network_is_one_peer() {
        let peer = |text: &str| PeerNetwork::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }
}
