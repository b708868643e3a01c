//! Addresses of nodes, and the numbers of their newest starts.

use std::collections::HashMap;

use parking_lot::RwLock;
use tidewater_common::ids::{BootNumber, NodeId};
use tokio::sync::watch;

/// Addresses of nodes. Calls look up the address each time, so that a change takes effect with the
/// next call.
#[derive(Debug, Default)]
pub struct AddressBook {
    addresses: RwLock<HashMap<NodeId, String>>,
    starts: watch::Sender<HashMap<NodeId, BootNumber>>,
}

impl AddressBook {
    /// Creates an empty address book.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a node's address (host:port), replacing the previous one.
    pub fn set(&self, node: NodeId, address: impl Into<String>) {
        self.addresses.write().insert(node, address.into());
    }

    /// Sets a node's address unless one is known.
    pub fn set_if_absent(&self, node: NodeId, address: &str) {
        if address.is_empty() || self.addresses.read().contains_key(&node) {
            return;
        }
        self.addresses.write().entry(node).or_insert_with(|| address.to_owned());
    }

    /// Replaces all addresses: nodes without one are forgotten.
    pub fn replace_all(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        *self.addresses.write() = addresses.into_iter().collect();
    }

    /// Returns a node's address.
    pub fn get(&self, node: NodeId) -> Option<String> {
        self.addresses.read().get(&node).cloned()
    }

    /// Removes a node.
    pub fn remove(&self, node: NodeId) {
        self.addresses.write().remove(&node);
        self.starts.send_if_modified(|starts| starts.remove(&node).is_some());
    }

    /// Records the number of a node's newest start. An older number changes nothing.
    pub fn set_start(&self, node: NodeId, boot: BootNumber) {
        self.starts.send_if_modified(|starts| {
            let known = starts.entry(node).or_default();
            let is_newer = boot > *known;
            *known = boot.max(*known);
            is_newer
        });
    }

    /// Returns the number of a node's newest start; 0: not known.
    pub fn start(&self, node: NodeId) -> BootNumber {
        self.starts.borrow().get(&node).copied().unwrap_or_default()
    }

    /// Resolves when a node has started again since its start with this number.
    pub fn restarted(&self, node: NodeId, since: BootNumber) -> impl Future<Output = ()> + use<> {
        let mut starts = self.starts.subscribe();
        async move {
            let is_newer = |starts: &HashMap<NodeId, BootNumber>| {
                starts.get(&node).is_some_and(|newest| *newest > since)
            };
            if starts.wait_for(is_newer).await.is_err() {
                // The address book was dropped: the node stops.
                std::future::pending().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn newest_start_of_a_node_is_known() {
        let book = AddressBook::new();
        let node = NodeId(3);
        let boot = |number| BootNumber(number);
        assert_eq!(book.start(node), boot(0));
        book.set_start(node, boot(2));
        let restarted = book.restarted(node, boot(2));
        tokio::pin!(restarted);
        for older in [boot(2), boot(1), boot(0)] {
            book.set_start(node, older);
        }
        book.set_start(NodeId(4), boot(9));
        assert!(futures::poll!(&mut restarted).is_pending());
        assert_eq!(book.start(node), boot(2));
        book.set_start(node, boot(3));
        restarted.await;
        book.restarted(node, boot(2)).await;
        book.remove(node);
        assert_eq!((book.start(node), book.start(NodeId(4))), (boot(0), boot(9)));
    }
}
