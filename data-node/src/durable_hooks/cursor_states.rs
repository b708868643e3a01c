//! States of all cursors of the groups that this node leads (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_proto::v1::{CursorAdvance, HookCursor, ListedCursor};
use tokio::time::Instant;

use super::cursor::{Cursor, CursorKey, CursorMove};
use super::cursor_state::LocalCursorState;

/// Most concurrent deliveries of one hook: a hook that hangs for some regions delays no other hook.
const MAX_PER_HOOK: usize = 4;
/// Most moves of one request.
const MAX_MOVES: usize = 1_000;

/// Versions to which the regions of this node have read their manifests.
pub(super) type LoadedVersions = BTreeMap<RegionId, ManifestVersion>;

/// Cursors by region and hook.
#[derive(Debug, Default)]
pub(super) struct LocalCursorStates {
    cursors: BTreeMap<CursorKey, LocalCursorState>,
}

/// Delivery that is to begin.
#[derive(Debug, Clone)]
pub(super) struct DueDelivery {
    pub(super) cursor: Cursor,
    pub(super) dropped: bool,
}

impl LocalCursorStates {
    /// Replaces the cursors by those that the meta service lists. Cursors that it does not list are
    /// removed.
    pub(super) fn update(&mut self, listed: Vec<ListedCursor>) {
        let mut known = BTreeSet::new();
        for ListedCursor { cursor, dropped } in listed {
            let Some(cursor) = cursor.map(Cursor::new) else { continue };
            known.insert(cursor.key.clone());
            match self.state_of(&cursor) {
                Some(state) => state.record_listed(cursor, dropped),
                None => {
                    let key = cursor.key.clone();
                    self.cursors.insert(key, LocalCursorState::new(cursor, dropped));
                }
            }
        }
        self.cursors.retain(|key, _| known.contains(key));
    }

    /// Returns the state of a cursor, unless it belongs to another hook of the same name.
    fn state_of(&mut self, cursor: &Cursor) -> Option<&mut LocalCursorState> {
        let state = self.cursors.get_mut(&cursor.key)?;
        (state.cursor.generation == cursor.generation).then_some(state)
    }

    /// Starts the deliveries that are due: at most a few of each hook, the longest waiting first.
    pub(super) fn start_due(
        &mut self,
        versions: &LoadedVersions,
        is_callable: impl Fn(&Cursor) -> bool,
        now: Instant,
    ) -> Vec<DueDelivery> {
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, _) in self.cursors.iter().filter(|(_, state)| state.is_running()) {
            *running.entry(&key.1).or_default() += 1;
        }
        let is_due = |state: &LocalCursorState| {
            state.is_due(versions.get(&state.cursor.key.0).copied(), now)
        };
        let mut due: Vec<(&CursorKey, &LocalCursorState)> = self
            .cursors
            .iter()
            .filter(|(_, state)| is_due(state) && is_callable(&state.cursor))
            .collect();
        due.sort_by_key(|(_, state)| state.started_at());
        let mut keys = Vec::new();
        for (key, _) in due {
            let running = running.entry(&key.1).or_default();
            if *running < MAX_PER_HOOK {
                *running += 1;
                keys.push(key.clone());
            }
        }
        let mut deliveries = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(state) = self.cursors.get_mut(&key) {
                state.mark_running(now);
                let cursor = state.cursor.clone();
                deliveries.push(DueDelivery { cursor, dropped: state.dropped });
            }
        }
        deliveries
    }

    /// Records the end of the delivery that began with this cursor. Returns the backoff after a
    /// failure; `None` also if the cursor is no longer this node's.
    pub(super) fn end(
        &mut self,
        cursor: &Cursor,
        to: Option<CursorMove>,
        failed: bool,
        now: Instant,
        bits: u64,
    ) -> Option<Duration> {
        // After the leadership was lost and regained, the state may be a new one with a delivery of its
        // own.
        let state = self.state_of(cursor)?;
        if !state.is_running() || state.cursor != *cursor {
            return None;
        }
        state.end(to, failed, now, bits)
    }

    /// Sets the error of the delivery that began with this cursor; `None`: it succeeded.
    pub(super) fn set_problem(&mut self, cursor: &Cursor, problem: Option<String>) {
        if let Some(state) = self.state_of(cursor) {
            state.problem = problem;
        }
    }

    /// Returns the states of all cursors.
    pub(super) fn all(&self) -> impl Iterator<Item = &LocalCursorState> {
        self.cursors.values()
    }

    /// Returns the moves that the meta service has to record.
    pub(super) fn pending_moves(&self) -> Vec<CursorAdvance> {
        let moves = self.cursors.values().filter_map(|state| {
            let to = state.pending_move()?;
            Some(state.cursor.advance(to))
        });
        moves.take(MAX_MOVES).collect()
    }

    /// Records the reply of the meta service to a request for these moves.
    pub(super) fn record_moved(&mut self, requested: &[CursorAdvance], reply: Vec<HookCursor>) {
        let mut current: BTreeMap<CursorKey, Cursor> =
            reply.into_iter().map(Cursor::new).map(|cursor| (cursor.key.clone(), cursor)).collect();
        for advance in requested {
            let key = (RegionId(advance.region_id), advance.hook.clone());
            match current.remove(&key) {
                Some(cursor) => {
                    if let Some(state) = self.state_of(&cursor) {
                        state.record_moved(cursor);
                    }
                }
                None => drop(self.cursors.remove(&key)),
            }
        }
    }

    /// Returns the number of undelivered versions of each hook.
    pub(super) fn lags(&self, versions: &LoadedVersions) -> BTreeMap<String, u64> {
        let mut lags: BTreeMap<String, u64> = BTreeMap::new();
        for ((region, hook), state) in &self.cursors {
            let version = versions.get(region).map_or(0, |version| version.get());
            let lag = version.saturating_sub(state.cursor.version.get());
            let sum = lags.entry(hook.clone()).or_default();
            *sum = sum.saturating_add(lag);
        }
        lags
    }

    pub(super) fn clear(&mut self) {
        self.cursors.clear();
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::CursorState::{Lagged, Tail};

    use super::*;
    use crate::durable_hooks::tests::{cursor, listed};

    fn versions(regions: std::ops::Range<u64>, version: u64) -> LoadedVersions {
        regions.map(|region| (RegionId(region), ManifestVersion(version))).collect()
    }

    fn regions(due: &[DueDelivery]) -> Vec<u64> {
        due.iter().map(|delivery| delivery.cursor.key.0.get()).collect()
    }

    #[test]
    fn each_hook_has_few_deliveries_and_no_region_starves() {
        let mut states = LocalCursorStates::default();
        states.update((1..7).map(|region| listed(region, "slow", 5, Tail)).collect());
        let versions = versions(1..7, 9);
        let now = Instant::now();
        let first = states.start_due(&versions, |_| true, now);
        assert_eq!(regions(&first), [1, 2, 3, 4]);
        assert!(states.start_due(&versions, |_| true, now).is_empty());
        // Another hook has a limit of its own.
        let mut all: Vec<_> = (1..7).map(|region| listed(region, "slow", 5, Tail)).collect();
        all.extend((1..3).map(|region| listed(region, "quick", 5, Tail)));
        states.update(all);
        assert_eq!(regions(&states.start_due(&versions, |_| true, now)), [1, 2]);
        for delivery in &first {
            states.end(&delivery.cursor, None, true, now, 0);
        }
        let later = now + Duration::from_secs(1);
        let next = states.start_due(&versions, |_| true, later);
        assert_eq!(regions(&next), [5, 6, 1, 2]);
        assert!(next.iter().all(|delivery| delivery.cursor.key.1 == "slow"));
    }

    #[test]
    fn hook_that_is_not_callable_waits() {
        let mut states = LocalCursorStates::default();
        states.update(vec![listed(1, "a", 5, Tail), listed(1, "b", 5, Tail)]);
        let is_callable = |cursor: &Cursor| cursor.key.1 == "b";
        let due = states.start_due(&versions(1..2, 9), is_callable, Instant::now());
        assert_eq!(due.len(), 1);
        assert_eq!(
            states.lags(&versions(1..2, 9)),
            BTreeMap::from([("a".into(), 4), ("b".into(), 4)])
        );
    }

    #[test]
    fn moves_stay_pending_until_the_meta_service_replies() {
        let mut states = LocalCursorStates::default();
        states.update((1..4).map(|region| listed(region, "h", 5, Tail)).collect());
        let versions = versions(1..4, 9);
        let now = Instant::now();
        for (delivery, to) in states.start_due(&versions, |_| true, now).iter().zip([7, 8, 9]) {
            states.end(
                &delivery.cursor,
                Some(CursorMove::To(ManifestVersion(to), Tail)),
                false,
                now,
                0,
            );
        }
        let requested = states.pending_moves();
        assert_eq!(requested.len(), 3);
        assert_eq!(
            (requested[1].region_id, requested[1].expected_version, requested[1].version),
            (2, 5, 8)
        );
        assert_eq!(states.pending_moves(), requested, "no reply was received");
        assert!(states.start_due(&versions, |_| true, now).is_empty());
        // The first was moved, another node has moved the second, the third was removed.
        let reply = vec![
            listed(1, "h", 7, Tail).cursor.unwrap(),
            listed(2, "h", 6, Lagged).cursor.unwrap(),
        ];
        states.record_moved(&requested, reply);
        assert!(states.pending_moves().is_empty());
        let due = states.start_due(&versions, |_| true, now);
        assert_eq!(regions(&due), [1, 2]);
        assert_eq!(due[1].cursor.state, Lagged);
    }

    #[test]
    fn late_delivery_of_an_unlisted_cursor_is_ignored() {
        let mut states = LocalCursorStates::default();
        states.update(vec![listed(1, "h", 5, Tail)]);
        let now = Instant::now();
        let due = states.start_due(&versions(1..2, 9), |_| true, now);
        states.update(Vec::new());
        let again = ListedCursor {
            cursor: Some(HookCursor { generation: 99, ..listed(1, "h", 8, Tail).cursor.unwrap() }),
            dropped: false,
        };
        states.update(vec![again]);
        states.end(&due[0].cursor, Some(CursorMove::To(ManifestVersion(6), Tail)), false, now, 0);
        assert!(states.pending_moves().is_empty());
        let own = cursor(1, "h", 5, Tail);
        assert_eq!(states.end(&own, None, true, now, 0), None);
    }
}
