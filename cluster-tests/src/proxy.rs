//! TCP proxies between nodes, with a rule for each directed pair.
//!
//! Every node advertises the address of its proxy, so all connections to it pass through the proxy. The
//! proxy identifies the source of a connection by the process that holds its other end. A rule can
//! therefore separate two nodes and keep their clients connected.

mod pump;
mod rules;
mod source;

use std::net::SocketAddr;

use tokio::net::TcpListener;
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
    /// Changes the rules, which apply to open connections immediately.
    pub fn change(&self, change: impl FnOnce(&mut RuleTable)) {
        self.table.send_modify(change);
    }

    /// Removes all rules.
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
    /// Forwards connections from `listener` to `target`, which need not listen yet.
    ///
    /// # Errors
    /// If the address of the listener is not available.
    pub fn start(
        listener: TcpListener,
        to: Party,
        target: SocketAddr,
        rules: Rules,
        pids: Pids,
    ) -> Result<Self> {
        let address =
            listener.local_addr().map_err(HarnessError::io("read the address of a proxy"))?;
        let task = tokio::spawn(serve(listener, to, target, rules, pids)).abort_handle();
        Ok(Self { address, task })
    }

    /// Address that the node advertises.
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
    // Dropping the set closes the connections with the proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((inbound, peer)) = accepted else { continue };
                let to = to.clone();
                let rules = rules.table.subscribe();
                let pids = pids.clone();
                connections.spawn(async move {
                    let from = source::identify(peer, inbound.local_addr().ok(), pids).await;
                    pump::forward(inbound, target, from, to, rules).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
