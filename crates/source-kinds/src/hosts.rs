//! Hosts that the sources and the exports of a node may call.
//!
//! A source is a call from inside the operator's network to a host that a caller chooses, e.g. the metadata service of
//! a cloud, or a service that trusts its own machine. Names are resolved here, and a connection goes to an address that
//! was checked: a name that resolves to another address a moment later gains nothing.
//!
//! - **Special address**: loopback, link-local, unspecified, multicast or reserved address, or one of a metadata service
//!   ([`AddressKind::is_special`]). A source calls it only if the operator names such addresses.
//! - **Entry**: a name, an address or a network that the operator names. Without entries, sources call all addresses
//!   except for special ones: databases usually have private addresses.
//!
//! # Layout
//!
//! - `network`: networks (pure).

mod network;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use tidewater_common::address_kind::AddressKind;

use self::network::Network;

/// Error: a text does not name a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a host, host:port, *.suffix, address, [address]:port or network, for example \
     db.example.org:5432, *.example.org or 10.0.0.0/8"
)]
pub struct SourceHostError;

/// Entry of the hosts that sources may call: `db.example.org`, `db.example.org:5432`, `*.example.org`, `10.0.0.1`,
/// `[::1]:5432` or `10.0.0.0/8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHost {
    target: Target,
    /// `None`: all ports.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A name in lower case.
    Name(String),
    /// The end of names in lower case, with the dot before it.
    Suffix(String),
    /// Addresses.
    Network(Network),
}

impl FromStr for SourceHost {
    type Err = SourceHostError;

    fn from_str(text: &str) -> Result<Self, SourceHostError> {
        let text = text.trim();
        if let Some((address, bits)) = text.split_once('/') {
            let address = address.parse::<IpAddr>().map_err(|_| SourceHostError)?;
            let bits = bits.parse::<u8>().map_err(|_| SourceHostError)?;
            let network = Network::new(address, bits).ok_or(SourceHostError)?;
            return Ok(Self { target: Target::Network(network), port: None });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { target: Target::Network(Network::of(address)), port: None });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let port = Some(address.port()).filter(|port| *port != 0).ok_or(SourceHostError)?;
            let target = Target::Network(Network::of(address.ip()));
            return Ok(Self { target, port: Some(port) });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => {
                let port = port.parse::<u16>().ok().filter(|port| *port != 0);
                (name, Some(port.ok_or(SourceHostError)?))
            }
            None => (text, None),
        };
        let name = normal_name(name);
        let target = if is_name(&name) {
            Target::Name(name)
        } else if let Some(suffix) = name.strip_prefix("*.").filter(|suffix| is_name(suffix)) {
            Target::Suffix(format!(".{suffix}"))
        } else {
            return Err(SourceHostError);
        };
        Ok(Self { target, port })
    }
}

impl SourceHost {
    fn has_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }

    /// `name`: a normal name.
    fn is_for_name(&self, name: &str) -> bool {
        match &self.target {
            Target::Name(own) => own == name,
            Target::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Target::Network(_) => false,
        }
    }

    fn permits_address(&self, address: IpAddr) -> bool {
        match &self.target {
            Target::Network(network) => network.permits(address),
            Target::Name(_) | Target::Suffix(_) => false,
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Returns a name in the form in which names are compared.
pub(crate) fn normal_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_lowercase()
}

/// Hosts that sources may call. The default permits all addresses except for special ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceHosts {
    /// `None`: all hosts.
    entries: Option<Arc<[SourceHost]>>,
}

/// A host that sources must not call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct HostRefused {
    host: String,
    port: u16,
    address: IpAddr,
    /// The operator has named the permitted hosts.
    is_listed: bool,
}

impl fmt::Display for HostRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, address, is_listed } = self;
        let place = SocketAddr::new(*address, *port);
        let is_address = host.parse::<IpAddr>() == Ok(*address);
        if is_address {
            write!(f, "{address}")?;
        } else {
            write!(f, "{host} is {address}, which")?;
        }
        let kind = AddressKind::of(*address);
        match (kind.is_special(), *is_listed) {
            (true, false) => write!(
                f,
                " is {kind}, and this node permits no calls of such addresses: start the data nodes \
                 with --source-hosts, which names {place} and all other hosts of sources and exports"
            ),
            (true, true) => write!(
                f,
                " is {kind}, and not in --source-hosts of this node: add {place}, because neither a \
                 name nor a larger network permits it"
            ),
            (false, _) if is_address => {
                write!(f, " is not in --source-hosts of this node: add {place}")
            }
            (false, _) => write!(f, " is not in --source-hosts of this node: add {host}:{port}"),
        }
    }
}

/// Reason why the addresses of a host are not known, or must not be called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    Refused(#[from] HostRefused),
    #[error(transparent)]
    Lookup(#[from] io::Error),
}

impl SourceHosts {
    /// Creates the hosts. Without an entry, it is the default.
    pub fn new(entries: Vec<SourceHost>) -> Self {
        Self { entries: (!entries.is_empty()).then(|| entries.into()) }
    }

    /// Returns the addresses of a host that sources may call, at least one. `host`: a name or an address.
    ///
    /// # Errors
    /// [`HostError::Refused`] if all addresses are refused.
    pub(crate) async fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, HostError> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        self.permitted(host, port, &found)
    }

    fn permitted(
        &self,
        host: &str,
        port: u16,
        found: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, HostError> {
        let mut refused = None;
        let mut permitted = Vec::with_capacity(found.len());
        for address in found {
            match self.check(host, port, address.ip()) {
                Ok(()) => permitted.push(*address),
                Err(error) => refused = Some(error),
            }
        }
        match (permitted.is_empty(), refused) {
            (false, _) => Ok(permitted),
            (true, Some(refused)) => Err(refused.into()),
            (true, None) => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))
                    .into())
            }
        }
    }

    /// Checks an address of a host.
    ///
    /// # Errors
    /// [`HostRefused`].
    pub(crate) fn check(&self, host: &str, port: u16, address: IpAddr) -> Result<(), HostRefused> {
        let is_special = AddressKind::of(address).is_special();
        let is_permitted = match &self.entries {
            None => !is_special,
            Some(entries) => {
                let name = normal_name(host);
                entries.iter().filter(|entry| entry.has_port(port)).any(|entry| {
                    entry.permits_address(address) || (!is_special && entry.is_for_name(&name))
                })
            }
        };
        if is_permitted {
            return Ok(());
        }
        let is_listed = self.entries.is_some();
        Err(HostRefused { host: host.to_owned(), port, address, is_listed })
    }
}

#[cfg(test)]
mod tests;
