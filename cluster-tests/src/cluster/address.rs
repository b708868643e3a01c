//! Reserved addresses of a cluster.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::{HarnessError, Result};

/// Addresses of one cluster: ports chosen by the system on the cluster's own loopback address.
///
/// Outgoing connections use 127.0.0.1, so none can take the port of a stopped node. All ports stay
/// bound until all are chosen, so they are distinct.
#[derive(Debug)]
pub(super) struct Reserved {
    ip: Ipv4Addr,
    held: Vec<TcpListener>,
}

impl Reserved {
    /// Chooses a random loopback address.
    pub(super) fn new() -> Result<Self> {
        let [a, b, c]: [u8; 3] = rand::random();
        // Exclude 127.0.x.x, which other processes use, and the first and last address of a network.
        let ip = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        TcpListener::bind((ip, 0)).map_err(HarnessError::io(format!("listen on {ip}")))?;
        Ok(Self { ip, held: Vec::new() })
    }

    /// Reserves more addresses for the cluster that `address` belongs to.
    pub(super) fn on_ip_of(address: SocketAddr) -> Result<Self> {
        match address {
            SocketAddr::V4(address) => Ok(Self { ip: *address.ip(), held: Vec::new() }),
            SocketAddr::V6(_) => Err(HarnessError::violated("clusters use IPv4 addresses")),
        }
    }

    /// Reserves an address for a node that starts later.
    pub(super) fn next(&mut self) -> Result<SocketAddr> {
        let what = || format!("reserve a port on {}", self.ip);
        let listener = TcpListener::bind((self.ip, 0)).map_err(HarnessError::io(what()))?;
        let address = listener.local_addr().map_err(HarnessError::io(what()))?;
        self.held.push(listener);
        Ok(address)
    }

    /// Returns a listener for a proxy.
    pub(super) async fn listener(&mut self) -> Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::bind((self.ip, 0))
            .await
            .map_err(HarnessError::io(format!("reserve a port on {}", self.ip)))
    }
}
