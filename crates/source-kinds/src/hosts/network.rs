//! Networks of IP addresses (pure).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tidewater_common::address_kind::AddressKind;

/// Bits of the network of IPv4 addresses in the form of IPv6 ones, `::ffff:0.0.0.0/96`.
const MAPPED_BITS: u8 = 96;

/// Fewest bits of a network that permits special addresses: one with fewer names them by accident.
const MIN_SPECIAL_BITS: u8 = 8;

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    first: IpAddr,
    last: IpAddr,
    bits: u8,
}

impl Network {
    /// Creates the network that has an address. An IPv4 network in the form of an IPv6 one, `::ffff:10.0.0.0/104`, becomes
    /// the IPv4 network `10.0.0.0/8`, because `permits` compares IPv4 addresses in their own form. `None` if the address
    /// has fewer bits, or if the bits of such a network do not cover the prefix of the form.
    pub(super) fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let canonical = address.to_canonical();
        let is_mapped = canonical != address;
        let bits = if is_mapped { bits.checked_sub(MAPPED_BITS)? } else { bits };
        let [first, last] = match canonical {
            IpAddr::V4(address) if bits <= 32 => {
                let rest = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
                let address = address.to_bits();
                [address & !rest, address | rest].map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
            }
            IpAddr::V6(address) if bits <= 128 => {
                let rest = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                let address = address.to_bits();
                [address & !rest, address | rest].map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { first, last, bits })
    }

    /// Creates the network of one address.
    pub(super) fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { first: address, last: address, bits }
    }

    /// Returns whether an entry with this network permits an address. A special one needs a network of special
    /// addresses: `0.0.0.0/0` does not name a metadata service.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.first..=self.last).contains(&address)
            && (!AddressKind::of(address).is_special() || self.is_special())
    }

    fn is_special(&self) -> bool {
        self.bits >= MIN_SPECIAL_BITS
            && AddressKind::of(self.first).is_special()
            && AddressKind::of(self.last).is_special()
    }
}
