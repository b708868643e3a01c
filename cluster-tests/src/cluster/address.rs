//! Addresses that nobody else uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::{HarnessError, Result};

/// Addresses of one cluster: ports that the system chooses on a loopback address of its own.
///
/// Outgoing connections start from 127.0.0.1, so none can take a node's port while it is down. All
/// ports stay bound until all are chosen, so no two are the same.
#[derive(Debug)]
pub(super) struct Reserved {
    ip: Ipv4Addr,
    held: Vec<TcpListener>,
}

impl Reserved {
    /// Draws the loopback address.
    pub(super) fn new() -> Result<Self> {
        let [a, b, c]: [u8; 3] = rand::random();
        // Neither 127.0.x.x, where everybody is, nor a network's first and last address.
        let ip = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        TcpListener::bind((ip, 0)).map_err(HarnessError::io(format!("listen on {ip}")))?;
        Ok(Self { ip, held: Vec::new() })
    }

    /// More addresses for the cluster that `address` belongs to.
    pub(super) fn beside(address: SocketAddr) -> Result<Self> {
        match address {
            SocketAddr::V4(address) => Ok(Self { ip: *address.ip(), held: Vec::new() }),
            SocketAddr::V6(_) => Err(HarnessError::violated("clusters live on IPv4")),
        }
    }

    /// An address for a node that is started later.
    pub(super) fn next(&mut self) -> Result<SocketAddr> {
        let what = || format!("reserve a port on {}", self.ip);
        let listener = TcpListener::bind((self.ip, 0)).map_err(HarnessError::io(what()))?;
        let address = listener.local_addr().map_err(HarnessError::io(what()))?;
        self.held.push(listener);
        Ok(address)
    }

    /// A listener for a proxy.
    pub(super) async fn listener(&mut self) -> Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::bind((self.ip, 0))
            .await
            .map_err(HarnessError::io(format!("reserve a port on {}", self.ip)))
    }
}
