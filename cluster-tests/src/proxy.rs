//! TCP between nodes, with a rule for each directed pair.
//!
//! Every node advertises the address of its own proxy, so all that others send to it passes here.
//! Who opened a connection is found by the process that holds its other end: a rule can part two
//! nodes from each other and leave their clients connected.

mod pump;
mod rules;
mod source;

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub use rules::{Party, Rule, RuleTable};

use crate::node::Pids;
use crate::{HarnessError, Result};

/// The rules that all proxies of a cluster follow.
#[derive(Debug, Clone)]
pub struct Rules {
    table: watch::Sender<RuleTable>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { table: watch::Sender::new(RuleTable::default()) }
    }
}

impl Rules {
    /// Changes the rules; open connections follow at once.
    pub fn change(&self, change: impl FnOnce(&mut RuleTable)) {
        self.table.send_modify(change);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.change(RuleTable::clear);
    }
}

/// The proxy in front of one node; stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    task: AbortHandle,
}

impl Proxy {
    /// Listens at `listener` and passes on to `target`, which need not run yet.
    ///
    /// # Errors
    /// When the listener's address cannot be told.
    pub fn start(
        listener: TcpListener,
        to: Party,
        target: SocketAddr,
        rules: Rules,
        pids: Pids,
    ) -> Result<Self> {
        let address = listener.local_addr().map_err(HarnessError::io("learn a proxy's address"))?;
        let task = tokio::spawn(serve(listener, to, target, rules, pids)).abort_handle();
        Ok(Self { address, task })
    }

    /// What the node advertises.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, to: Party, target: SocketAddr, rules: Rules, pids: Pids) {
    // Connections end with the proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((inbound, peer)) = accepted else { continue };
                let (to, rules, pids) = (to.clone(), rules.table.subscribe(), pids.clone());
                connections.spawn(async move {
                    let from = source::of_connection(peer, address_of(&inbound), pids).await;
                    pump::carry(inbound, target, from, to, rules).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn address_of(stream: &TcpStream) -> Option<SocketAddr> {
    stream.local_addr().ok()
}
