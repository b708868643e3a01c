//! Order and limits of the attempts of one call to the meta group (pure).
//!
//! A frozen leader answers nothing, and its followers name it as the leader until they have elected
//! another. Attempts are therefore short at first: a call reaches the new leader within about 3 s of
//! the freeze, before the new leader takes the silent caller for dead (5 s). A node that is only slow
//! has the last round.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Limit of an attempt in each round over the addresses. There is another round only after a timeout.
const LIMITS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];
/// Most redirects to a leader that are followed in a round.
const MAX_REDIRECTS: u32 = 3;

/// Attempts of one call, in order.
#[derive(Debug)]
pub(super) struct AttemptPlan {
    addresses: Vec<String>,
    round: usize,
    queue: VecDeque<String>,
    timed_out: BTreeSet<String>,
    timed_out_in_round: bool,
    redirects: u32,
}

impl AttemptPlan {
    /// Creates the plan of a call to these addresses, in order of preference.
    pub(super) fn new(addresses: Vec<String>) -> Self {
        Self {
            queue: addresses.iter().cloned().collect(),
            addresses,
            round: 0,
            timed_out: BTreeSet::new(),
            timed_out_in_round: false,
            redirects: 0,
        }
    }

    /// Returns the address of the next attempt, and its limit.
    pub(super) fn next(&mut self) -> Option<(String, Duration)> {
        if self.queue.is_empty() && self.timed_out_in_round {
            self.round += 1;
            self.timed_out_in_round = false;
            self.redirects = 0;
            if self.round < LIMITS.len() {
                let (hung, answering): (Vec<_>, Vec<_>) = self
                    .addresses
                    .iter()
                    .cloned()
                    .partition(|known| self.timed_out.contains(known));
                self.queue = answering.into_iter().chain(hung).collect();
            }
        }
        let limit = *LIMITS.get(self.round)?;
        Some((self.queue.pop_front()?, limit))
    }

    /// Records that the node at an address did not answer in time.
    pub(super) fn record_timeout(&mut self, address: String) {
        self.timed_out_in_round = true;
        if !self.addresses.contains(&address) {
            self.addresses.push(address.clone());
        }
        self.timed_out.insert(address);
    }

    /// Records that a node named this leader: it is called next, unless it has timed out before.
    pub(super) fn record_leader(&mut self, leader: &str) {
        if leader.is_empty() || self.timed_out.contains(leader) || self.redirects == MAX_REDIRECTS {
            return;
        }
        self.redirects += 1;
        self.queue.retain(|known| known != leader);
        self.queue.push_front(leader.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaction of a node.
    #[derive(Clone, Copy)]
    enum Reply {
        Nothing,
        NoLeader,
        Leader(&'static str),
    }

    /// Runs a plan and returns its attempts with their limits in seconds.
    fn attempts(addresses: &[&str], reply: impl Fn(&str, usize) -> Reply) -> Vec<(String, u64)> {
        let mut plan =
            AttemptPlan::new(addresses.iter().map(|known| (*known).to_owned()).collect());
        let mut made = Vec::new();
        while let Some((address, limit)) = plan.next() {
            made.push((address.clone(), limit.as_secs()));
            match reply(&address, made.len()) {
                Reply::Nothing => plan.record_timeout(address),
                Reply::NoLeader => {}
                Reply::Leader(leader) => plan.record_leader(leader),
            }
            assert!(made.len() < 40, "endless: {made:?}");
        }
        made
    }

    fn expect(made: &[(String, u64)], expected: &[(&str, u64)]) {
        let made: Vec<(&str, u64)> = made.iter().map(|(at, limit)| (at.as_str(), *limit)).collect();
        assert_eq!(made, expected);
    }

    #[test]
    fn answers_end_the_call_after_one_round() {
        let made = attempts(&["a", "b", "c"], |_, _| Reply::NoLeader);
        expect(&made, &[("a", 1), ("b", 1), ("c", 1)]);
    }

    #[test]
    fn named_leader_is_called_next_a_few_times() {
        let made = attempts(&["a", "b"], |_, number| match number {
            1 => Reply::Leader("c"),
            _ => Reply::NoLeader,
        });
        expect(&made, &[("a", 1), ("c", 1), ("b", 1)]);
        // Two nodes that name each other.
        let made = attempts(&["a", "b"], |at, _| Reply::Leader(if at == "a" { "b" } else { "a" }));
        expect(&made, &[("a", 1), ("b", 1), ("a", 1), ("b", 1)]);
    }

    #[test]
    fn frozen_leader_delays_calls_by_short_attempts_only() {
        // The followers name the frozen leader, which is not called again in the same round.
        let made = attempts(&["a", "b", "c"], |at, _| match at {
            "a" => Reply::Nothing,
            _ => Reply::Leader("a"),
        });
        let rounds = [1, 2, 5];
        let expected: Vec<(&str, u64)> = [("a", 1), ("b", 1), ("c", 1)]
            .into_iter()
            .chain(
                rounds[1..].iter().flat_map(|limit| [("b", *limit), ("c", *limit), ("a", *limit)]),
            )
            .collect();
        expect(&made, &expected);
        // A node that is slow but leads is called with each limit.
        let made = attempts(&["a"], |_, _| Reply::Nothing);
        expect(&made, &[("a", 1), ("a", 2), ("a", 5)]);
    }

    #[test]
    fn named_leader_outside_the_addresses_gets_longer_attempts() {
        let made = attempts(&["a"], |at, _| match at {
            "a" => Reply::Leader("d"),
            _ => Reply::Nothing,
        });
        expect(&made, &[("a", 1), ("d", 1), ("a", 2), ("d", 2), ("a", 5), ("d", 5)]);
    }
}
