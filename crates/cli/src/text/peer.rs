//! A peer of the meta group: `1=127.0.0.1:7401`.

use std::str::FromStr;

/// Id and address of a meta node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Id of the node, from 1.
    pub(crate) node_id: u64,
    /// Address of the node, HOST:PORT.
    pub(crate) address: String,
}

/// An invalid peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a peer: write ID=HOST:PORT, with an id from 1, e.g. 1=127.0.0.1:7401")]
pub(crate) struct PeerError(String);

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let wrong = || PeerError(text.to_owned());
        let (id, address) = text.trim().split_once('=').ok_or_else(wrong)?;
        let node_id: u64 = id.trim().parse().map_err(|_| wrong())?;
        let address = address.trim();
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if node_id == 0 || host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return Err(wrong());
        }
        Ok(Self { node_id, address: address.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_parse() {
        let peer = |node_id, address: &str| Ok(Peer { node_id, address: address.to_owned() });
        assert_eq!("1=127.0.0.1:7401".parse(), peer(1, "127.0.0.1:7401"));
        assert_eq!(" 2 = meta-2:7400 ".parse(), peer(2, "meta-2:7400"));
        assert_eq!("3=[::1]:7400".parse(), peer(3, "[::1]:7400"));
    }

    #[test]
    fn invalid_peers_are_rejected() {
        for text in ["", "127.0.0.1:7401", "0=a:1", "x=a:1", "1=a", "1=:1", "1=a:0", "1=a:99999"] {
            assert_eq!(text.parse::<Peer>(), Err(PeerError(text.to_owned())), "{text}");
        }
    }
}
