//! Search for the meta leader, in the order of the client library (pure).

/// Addresses of the meta group, and what the last answers have shown.
#[derive(Debug, Clone)]
pub(super) struct MetaSearch {
    addresses: Vec<String>,
    hint: Option<String>,
    failed: Option<String>,
    turn: usize,
}

impl MetaSearch {
    /// Starts with address number `first`, so that many searches begin at different nodes.
    pub(super) fn new(addresses: &[String], first: usize) -> Self {
        Self { addresses: addresses.to_vec(), hint: None, failed: None, turn: first }
    }

    /// Address of the next attempt: the presumed leader, unless it has just failed, else each node in turn.
    pub(super) fn next(&self) -> String {
        let usable = |address: &&String| Some(*address) != self.failed.as_ref();
        if let Some(hint) = self.hint.iter().find(usable) {
            return hint.clone();
        }
        let others: Vec<&String> = self.addresses.iter().filter(usable).collect();
        let count = others.len().max(1);
        let chosen = others.get(self.turn % count).copied().or(self.failed.as_ref());
        chosen.cloned().unwrap_or_default()
    }

    /// Records that a node answered as the leader.
    pub(super) fn record_success(&mut self, address: &str) {
        self.hint = Some(address.to_owned());
        self.failed = None;
    }

    /// Records that an attempt failed. `leader`: the node that the answer named. Returns whether the next
    /// attempt needs no wait, because a leader is known.
    pub(super) fn record_failure(&mut self, address: &str, leader: Option<&str>) -> bool {
        if self.hint.as_deref() == Some(address) {
            self.hint = None;
        }
        self.failed = Some(address.to_owned());
        self.turn += 1;
        let named = leader.filter(|named| !named.is_empty() && *named != address);
        if let Some(named) = named {
            self.hint = Some(named.to_owned());
        }
        named.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_follows_leaders_and_skips_failed_nodes() {
        let addresses = ["a", "b", "c"].map(str::to_owned);
        let mut search = MetaSearch::new(&addresses, 4);
        assert_eq!(search.next(), "b");
        assert!(search.record_failure("b", Some("c")));
        assert_eq!(search.next(), "c");
        search.record_success("c");
        assert_eq!(search.next(), "c");
        // The leader died, and a follower still names it.
        assert!(!search.record_failure("c", None));
        assert_eq!(search.next(), "a");
        assert!(search.record_failure("a", Some("c")));
        assert_eq!(search.next(), "c");
        assert!(!search.record_failure("c", Some("c")));
        assert_ne!(search.next(), "c");
        assert_eq!(MetaSearch::new(&addresses[..1], 7).next(), "a");
        let mut only = MetaSearch::new(&addresses[..1], 0);
        only.record_failure("a", None);
        assert_eq!(only.next(), "a");
    }
}
