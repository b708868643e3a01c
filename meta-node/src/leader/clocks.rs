//! Agreement of the cluster's clocks, and the next reading of replicated time. Pure.
//!
//! Replicated time counts real time: the leader's monotonic clock drives it. It is corrected by the
//! *agreed time*, the median of the clocks of the leader and of the data nodes, so that no single clock
//! can drag it ahead. It never goes back and never stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::clock::ClockDifference;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeRole, NodeState};

use crate::catalog::{MetaState, Node, TICK_INTERVAL_MS};

/// Earliest time that can be right, 2020-01-01: before the clocks have agreed for the first time,
/// replicated time counts from 0.
const EARLIEST_MS: u64 = 1_577_836_800_000;
/// While replicated time is ahead of the agreed time, it misses one part in this many, so that it
/// converges and nothing that waits for it stops.
const SLEW: u64 = 8;

/// Advance of replicated time in one tick from which the advance is a jump: longer than any election.
const JUMP_MS: u64 = 60_000;

/// Clocks as the leader knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownClocks {
    /// The leader's own clock, milliseconds since the Unix epoch.
    pub(crate) own_ms: u64,
    /// Clocks of the data nodes with a recent heartbeat.
    pub(crate) nodes_ms: Vec<u64>,
    /// Number of data nodes that are up.
    pub(crate) nodes_up: usize,
}

impl KnownClocks {
    /// Selects the clocks of data nodes that are up from the recent clocks of all nodes.
    pub(crate) fn new(state: &MetaState, recent: &BTreeMap<NodeId, u64>, own_ms: u64) -> Self {
        let up = |node: &&Arc<Node>| node.role == NodeRole::Data && node.state == NodeState::Up;
        let nodes: Vec<NodeId> = state.nodes().filter(up).map(|node| node.id).collect();
        let nodes_ms = nodes.iter().filter_map(|node| recent.get(node).copied()).collect();
        Self { own_ms, nodes_ms, nodes_up: nodes.len() }
    }

    /// Returns the agreed time: the median of the clocks. `None` until at least one data node and more
    /// than half of all clocks are known: the first of a new term may be those that are wrong. Of an even
    /// number of clocks, replicated time decides which half is right.
    pub(crate) fn agreed_ms(&self, replicated_ms: u64) -> Option<u64> {
        let known = self.nodes_ms.len() + 1;
        let expected = self.nodes_up + 1;
        if self.nodes_ms.is_empty() || known * 2 <= expected {
            return None;
        }
        let mut clocks = self.nodes_ms.clone();
        clocks.push(self.own_ms);
        if clocks.len().is_multiple_of(2) {
            clocks.push(replicated_ms);
        }
        clocks.sort_unstable();
        Some(clocks[clocks.len() / 2]).filter(|agreed| *agreed >= EARLIEST_MS)
    }
}

/// Returns the command of a tick: replicated time advances by the time since the leader's last tick, and
/// to the agreed time where that is later.
pub(crate) fn next_tick(
    replicated_ms: u64,
    elapsed: Duration,
    agreed_ms: Option<u64>,
) -> v1::AdvanceTime {
    let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).min(2 * TICK_INTERVAL_MS);
    let is_ahead = agreed_ms.is_some_and(|agreed| replicated_ms > agreed + TICK_INTERVAL_MS);
    let elapsed = if is_ahead { elapsed - elapsed / SLEW } else { elapsed };
    v1::AdvanceTime {
        now_ms: replicated_ms.saturating_add(elapsed),
        agreed_ms: agreed_ms.unwrap_or(0),
    }
}

/// Returns whether a tick moves replicated time much further than time has passed: the cluster was off. The
/// first agreement of a new cluster is no jump.
pub(crate) fn is_jump(replicated_ms: u64, agreed_ms: Option<u64>) -> bool {
    let is_new = announced_ms(replicated_ms) == 0;
    !is_new && agreed_ms.is_some_and(|agreed| agreed > replicated_ms.saturating_add(JUMP_MS))
}

/// Returns replicated time for nodes; 0 while the clocks have never agreed, so that nodes do not use it.
pub(crate) fn announced_ms(replicated_ms: u64) -> u64 {
    if replicated_ms < EARLIEST_MS { 0 } else { replicated_ms }
}

/// Returns the nodes whose clocks differ from the agreed time by more than the bound.
pub(crate) fn differing(
    recent: &BTreeMap<NodeId, u64>,
    agreed_ms: Option<u64>,
    bound: Duration,
) -> Vec<u64> {
    let Some(agreed_ms) = agreed_ms else { return Vec::new() };
    let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    let differs = |ms: u64| ClockDifference::beyond(bound_ms, ms, agreed_ms).is_some();
    recent.iter().filter(|(_, ms)| differs(**ms)).map(|(node, _)| node.get()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const YEAR: u64 = 365 * 86_400_000;
    const DAYS: u64 = 3 * 86_400_000;

    fn agreed(own_ms: u64, nodes_ms: &[u64], nodes_up: usize, replicated_ms: u64) -> Option<u64> {
        KnownClocks { own_ms, nodes_ms: nodes_ms.to_vec(), nodes_up }.agreed_ms(replicated_ms)
    }

    #[test]
    fn one_wrong_clock_never_decides() {
        for wrong in [NOW - YEAR, NOW - 3_600_000, NOW + 3_600_000, NOW + YEAR] {
            // The last value: replicated time after a restart, after an outage, in a new cluster.
            for replicated in [NOW, NOW - DAYS, 0] {
                for nodes in 2..=5 {
                    let mut clocks = vec![NOW; nodes];
                    assert_eq!(agreed(wrong, &clocks, nodes, replicated), Some(NOW), "{nodes}");
                    clocks[0] = wrong;
                    assert_eq!(agreed(NOW, &clocks, nodes, replicated), Some(NOW), "{nodes}");
                }
            }
            // With two clocks, replicated time decides.
            assert_eq!(agreed(wrong, &[NOW], 1, NOW), Some(NOW));
            assert_eq!(agreed(NOW, &[wrong], 1, NOW), Some(NOW));
        }
        // A new cluster of one meta node and one data node: the earlier clock is taken.
        assert_eq!(agreed(NOW + YEAR, &[NOW], 1, 0), Some(NOW));
        assert_eq!(agreed(NOW, &[NOW + YEAR], 1, 0), Some(NOW));
    }

    #[test]
    fn few_clocks_do_not_agree() {
        assert_eq!(agreed(NOW, &[], 0, NOW), None);
        assert_eq!(agreed(NOW, &[], 3, NOW), None);
        assert_eq!(agreed(NOW, &[NOW], 3, NOW), None);
        assert_eq!(agreed(NOW, &[NOW, NOW], 3, NOW), Some(NOW));
        assert_eq!(agreed(0, &[0, 0], 2, NOW), None, "a clock that was never set");
    }

    fn tick(replicated: u64, elapsed_ms: u64, agreed_ms: Option<u64>) -> (u64, u64) {
        let tick = next_tick(replicated, Duration::from_millis(elapsed_ms), agreed_ms);
        (tick.now_ms - replicated, tick.agreed_ms)
    }

    #[test]
    fn time_counts_whatever_the_clocks_say() {
        // Elapsed, agreed time, advance.
        let cases = [
            (1_000, None, 1_000),
            (1_000, Some(NOW), 1_000),
            (1_000, Some(NOW + DAYS), 1_000),
            (9_000, None, 2 * TICK_INTERVAL_MS),
            // Behind replicated time: it counts a little slower, but it counts.
            (1_000, Some(NOW - 1_000), 1_000),
            (1_000, Some(NOW - 1_001), 875),
            (1_000, Some(NOW - YEAR), 875),
        ];
        for (elapsed, agreed, advance) in cases {
            assert_eq!(tick(NOW, elapsed, agreed), (advance, agreed.unwrap_or(0)), "{agreed:?}");
        }
    }

    #[test]
    fn time_jumps_after_an_outage() {
        assert!(is_jump(NOW, Some(NOW + DAYS)));
        assert!(is_jump(NOW, Some(NOW + JUMP_MS + 1)));
        assert!(!is_jump(NOW, Some(NOW + JUMP_MS)), "an election");
        assert!(!is_jump(NOW, Some(NOW - DAYS)));
        assert!(!is_jump(NOW, None));
        assert!(!is_jump(5_000, Some(NOW)), "a new cluster");
    }

    #[test]
    fn nodes_beyond_the_bound_are_named() {
        let bound = Duration::from_secs(600);
        let clock = |node, ms| (NodeId(node), ms);
        let recent = [
            clock(101, NOW + 600_000),
            clock(102, NOW + 600_001),
            clock(103, NOW - YEAR),
            clock(104, NOW),
        ];
        assert_eq!(differing(&recent.into(), Some(NOW), bound), [102, 103]);
        assert_eq!(differing(&recent.into(), None, bound), [0; 0]);
    }

    #[test]
    fn time_that_was_never_agreed_is_not_announced() {
        assert_eq!(announced_ms(5_000), 0);
        assert_eq!(announced_ms(NOW), NOW);
    }
}
