//! Comparison of this replica's state with the leader's, at the same log index.
//!
//! Replicas that apply the same entries have equal states (R2), unless a defect or a damaged disk makes them
//! differ. The leader adds the digest of its state to its next tick, and every replica compares it with
//! the digest that it had after the same entry. Each digest follows from the previous one and the rows
//! that changed, so that a comparison reads nothing. A difference is reported and changes nothing else: the
//! replica goes on, and an operator replaces it. The leader reads the difference of each member at
//! intervals and lists it in the cluster status.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use tidewater_common::ids::LogIndex;
use tidewater_proto::v1::StateDigest;
use twox_hash::XxHash64;

use crate::catalog::{CatalogError, MetaState, StateRowWrite};
use crate::meters;

/// Number of digests kept: one for each tick. The leader's arrives with the next tick.
const KEPT: usize = 64;

/// Digest of the rows of a state: the sum of their hashes. Takes 16 bytes for each row.
#[derive(Debug, Default)]
pub(super) struct RowDigest {
    /// Hash of each row, by the hash of its key.
    rows: BTreeMap<u64, u64>,
    sum: u64,
}

impl RowDigest {
    /// Computes the digest of a state.
    pub(super) fn of(state: &MetaState) -> Result<Self, CatalogError> {
        let mut digest = Self::default();
        for (key, bytes) in state.rows()? {
            digest.put(&key, Some(&bytes));
        }
        Ok(digest)
    }

    /// Follows the row writes of an entry.
    pub(super) fn follow(&mut self, writes: &[StateRowWrite]) {
        for (key, bytes) in writes {
            self.put(key, bytes.as_deref());
        }
    }

    pub(super) fn value(&self) -> u64 {
        self.sum
    }

    fn put(&mut self, key: &[u8], bytes: Option<&[u8]>) {
        let key = XxHash64::oneshot(0, key);
        let before = match bytes {
            Some(bytes) => {
                let row = XxHash64::oneshot(key, bytes);
                self.sum = self.sum.wrapping_add(row);
                self.rows.insert(key, row)
            }
            None => self.rows.remove(&key),
        };
        self.sum = self.sum.wrapping_sub(before.unwrap_or(0));
    }
}

/// A state that differs from the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDifference {
    /// Log index at which the difference was found first.
    pub first: LogIndex,
    /// Log index of the last comparison.
    pub last: LogIndex,
    /// Replicated time at which it was found first, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// Digests of this replica after recent ticks, and the result of the last comparison.
#[derive(Debug, Default)]
pub(crate) struct StateComparison(Mutex<ComparedState>);

#[derive(Debug, Default)]
struct ComparedState {
    /// In order of index.
    recent: VecDeque<StateDigest>,
    difference: Option<StateDifference>,
}

impl StateComparison {
    /// Records the digest of this replica after the entry with this index.
    pub(super) fn record(&self, index: u64, digest: u64) {
        let recent = &mut self.0.lock().recent;
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(StateDigest { index, digest });
    }

    /// Forgets the digests: the state was replaced.
    pub(super) fn clear(&self) {
        self.0.lock().recent.clear();
    }

    /// Digest after the last tick, which the leader sends.
    pub(crate) fn latest(&self) -> Option<StateDigest> {
        self.0.lock().recent.back().copied()
    }

    /// Compares the leader's digest with this replica's, if it is still known. `now_ms`: replicated time.
    pub(super) fn compare(&self, leader: &StateDigest, now_ms: u64) {
        let mut compared = self.0.lock();
        let Some(own) = compared.recent.iter().find(|own| own.index == leader.index) else {
            return;
        };
        let differs = own.digest != leader.digest;
        let last = LogIndex(leader.index);
        let first = compared.difference.map_or(last, |known| known.first);
        let since_ms = compared.difference.map_or(now_ms, |known| known.since_ms);
        match (compared.difference, differs) {
            (None, true) => tracing::error!(
                index = leader.index,
                own = own.digest,
                leader = leader.digest,
                "this replica's catalog differs from the leader's: replace this meta node \
                 (`tidewater meta-member replace`)"
            ),
            (Some(_), false) => tracing::info!(
                index = leader.index,
                "this replica's catalog equals the leader's again"
            ),
            _ => {}
        }
        compared.difference = differs.then_some(StateDifference { first, last, since_ms });
        meters::set_state_differs(differs);
    }

    /// Changes the known digests, as if the state differed.
    #[cfg(test)]
    pub(crate) fn falsify(&self) {
        self.0
            .lock()
            .recent
            .iter_mut()
            .for_each(|known| known.digest = known.digest.wrapping_add(1));
    }

    /// Returns the difference from the leader's state, if the last comparison found one.
    pub(crate) fn difference(&self) -> Option<StateDifference> {
        self.0.lock().difference
    }
}

#[cfg(test)]
mod tests;
