//! Addresses of nodes.

use std::collections::HashMap;

use parking_lot::RwLock;
use tidewater_common::ids::NodeId;

/// Addresses of nodes. Calls look up the address each time, so that a change takes effect with the
/// next call.
#[derive(Debug, Default)]
pub struct AddressBook {
    addresses: RwLock<HashMap<NodeId, String>>,
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
    }
}
