//! Open loads of each server of sources (pure).

use std::collections::BTreeMap;

/// Maximum number of open loads of a node for one server: one that hangs leaves the other loads to other servers.
pub(super) const LOADS_OF_SERVER: usize = 4;

/// Numbers of open loads, by the server of their source.
#[derive(Debug, Default)]
pub(super) struct ServerLoads {
    open: BTreeMap<String, usize>,
}

impl ServerLoads {
    /// Counts a load. Returns false, without an effect, if the server has as many loads as it may.
    #[must_use]
    pub(super) fn begin(&mut self, server: &str) -> bool {
        let open = self.open.entry(server.to_owned()).or_default();
        let is_permitted = *open < LOADS_OF_SERVER;
        *open += usize::from(is_permitted);
        is_permitted
    }

    /// Ends a load that was counted.
    pub(super) fn end(&mut self, server: &str) {
        let Some(open) = self.open.get_mut(server) else { return };
        *open = open.saturating_sub(1);
        if *open == 0 {
            self.open.remove(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_one_server_are_limited_together() {
        let mut loads = ServerLoads::default();
        assert!((0..LOADS_OF_SERVER).all(|_| loads.begin("a:5432")));
        assert!(!loads.begin("a:5432"));
        assert!(loads.begin("b:5432"));
        loads.end("a:5432");
        assert!(loads.begin("a:5432"));
        assert!(!loads.begin("a:5432"));
    }

    #[test]
    fn servers_without_loads_are_forgotten() {
        let mut loads = ServerLoads::default();
        for _ in 0..3 {
            assert!(loads.begin("a") && loads.begin("b") && loads.begin("a"));
            loads.end("a");
            assert_eq!(loads.open.len(), 2);
            loads.end("b");
            loads.end("a");
            loads.end("a");
            assert!(loads.open.is_empty());
        }
    }
}
