//! All cursors of the groups that this node leads: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_proto::v1::{CursorAdvance, HookCursor, ListedCursor};
use tokio::time::Instant;

use super::cursor::{Cursor, Key, Move};
use super::track::Track;

/// Turns of one hook at once: one that hangs for some regions holds up no other hook.
const PER_HOOK: usize = 4;
/// Moves of one request.
const MOVES: usize = 1_000;

/// How far the regions hosted here have read their manifests.
pub(super) type Versions = BTreeMap<RegionId, ManifestVersion>;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    tracks: BTreeMap<Key, Track>,
}

/// A turn that is to begin.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) cursor: Cursor,
    pub(super) dropped: bool,
}

impl Tracks {
    /// Takes in what the meta service lists: what it does not name is gone.
    pub(super) fn list(&mut self, listed: Vec<ListedCursor>) {
        let mut known = BTreeSet::new();
        for one in listed {
            let Some(cursor) = one.cursor.map(Cursor::new) else { continue };
            known.insert(cursor.key.clone());
            match self.of(&cursor) {
                Some(track) => track.listed(cursor, one.dropped),
                None => {
                    self.tracks.insert(cursor.key.clone(), Track::new(cursor, one.dropped));
                }
            }
        }
        self.tracks.retain(|key, _| known.contains(key));
    }

    /// The track of this very cursor, not of an earlier hook of its name.
    fn of(&mut self, cursor: &Cursor) -> Option<&mut Track> {
        let track = self.tracks.get_mut(&cursor.key)?;
        (track.cursor.generation == cursor.generation).then_some(track)
    }

    /// Begins turns: those that are due, the ones first that have waited longest, a few of each hook.
    pub(super) fn begin(
        &mut self,
        versions: &Versions,
        callable: impl Fn(&Cursor) -> bool,
        now: Instant,
    ) -> Vec<Due> {
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, _) in self.tracks.iter().filter(|(_, track)| track.is_running()) {
            *running.entry(&key.1).or_default() += 1;
        }
        let is_due = |track: &Track| track.is_due(versions.get(&track.cursor.key.0).copied(), now);
        let mut due: Vec<(&Key, &Track)> = self
            .tracks
            .iter()
            .filter(|(_, track)| is_due(track) && callable(&track.cursor))
            .collect();
        due.sort_by_key(|(_, track)| track.began());
        let mut keys = Vec::new();
        for (key, _) in due {
            let running = running.entry(&key.1).or_default();
            if *running < PER_HOOK {
                *running += 1;
                keys.push(key.clone());
            }
        }
        let mut turns = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(track) = self.tracks.get_mut(&key) {
                track.begin(now);
                turns.push(Due { cursor: track.cursor.clone(), dropped: track.dropped });
            }
        }
        turns
    }

    /// A turn that began with this cursor has ended. How long it waits after a failure; `None` also
    /// when the cursor is not this node's any more.
    pub(super) fn end(
        &mut self,
        cursor: &Cursor,
        to: Option<Move>,
        failed: bool,
        now: Instant,
    ) -> Option<Duration> {
        // After a change of leaders and back, the track may be a new one: its own turn counts.
        let track = self.of(cursor)?;
        if !track.is_running() || track.cursor != *cursor {
            return None;
        }
        track.end(to, failed, now)
    }

    /// What the meta service is to be asked for.
    pub(super) fn moves(&self) -> Vec<CursorAdvance> {
        let moving = self.tracks.values().filter_map(|track| {
            let to = track.moving()?;
            Some(track.cursor.advance(to))
        });
        moving.take(MOVES).collect()
    }

    /// The meta service was asked for these moves, and has answered.
    pub(super) fn moved(&mut self, asked: &[CursorAdvance], answer: Vec<HookCursor>) {
        let mut now: BTreeMap<Key, Cursor> = answer
            .into_iter()
            .map(Cursor::new)
            .map(|cursor| (cursor.key.clone(), cursor))
            .collect();
        for advance in asked {
            let key = (RegionId(advance.region_id), advance.hook.clone());
            match now.remove(&key) {
                Some(cursor) => {
                    if let Some(track) = self.of(&cursor) {
                        track.moved(cursor);
                    }
                }
                None => drop(self.tracks.remove(&key)),
            }
        }
    }

    /// Versions that each hook has not been told of.
    pub(super) fn lags(&self, versions: &Versions) -> BTreeMap<String, u64> {
        let mut lags: BTreeMap<String, u64> = BTreeMap::new();
        for ((region, hook), track) in &self.tracks {
            let version = versions.get(region).map_or(0, |version| version.get());
            let lag = version.saturating_sub(track.cursor.version.get());
            let sum = lags.entry(hook.clone()).or_default();
            *sum = sum.saturating_add(lag);
        }
        lags
    }

    pub(super) fn clear(&mut self) {
        self.tracks.clear();
    }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::CursorState::{Lagged, Tail};

    use super::*;
    use crate::durable::tests::{cursor, listed};

    fn versions(regions: std::ops::Range<u64>, version: u64) -> Versions {
        regions.map(|region| (RegionId(region), ManifestVersion(version))).collect()
    }

    fn regions(due: &[Due]) -> Vec<u64> {
        due.iter().map(|one| one.cursor.key.0.get()).collect()
    }

    #[test]
    fn a_few_turns_of_each_hook_run_at_once_and_nobody_starves() {
        let mut tracks = Tracks::default();
        tracks.list((1..7).map(|region| listed(region, "slow", 5, Tail)).collect());
        let versions = versions(1..7, 9);
        let now = Instant::now();
        let first = tracks.begin(&versions, |_| true, now);
        assert_eq!(regions(&first), [1, 2, 3, 4]);
        assert!(tracks.begin(&versions, |_| true, now).is_empty());
        // Another hook has turns of its own.
        let mut all: Vec<_> = (1..7).map(|region| listed(region, "slow", 5, Tail)).collect();
        all.extend((1..3).map(|region| listed(region, "quick", 5, Tail)));
        tracks.list(all);
        assert_eq!(regions(&tracks.begin(&versions, |_| true, now)), [1, 2]);
        for one in &first {
            tracks.end(&one.cursor, None, true, now);
        }
        let later = now + Duration::from_secs(1);
        let next = tracks.begin(&versions, |_| true, later);
        assert_eq!(regions(&next), [5, 6, 1, 2]);
        assert!(next.iter().all(|one| one.cursor.key.1 == "slow"));
    }

    #[test]
    fn a_hook_that_cannot_be_called_here_waits() {
        let mut tracks = Tracks::default();
        tracks.list(vec![listed(1, "a", 5, Tail), listed(1, "b", 5, Tail)]);
        let callable = |cursor: &Cursor| cursor.key.1 == "b";
        let due = tracks.begin(&versions(1..2, 9), callable, Instant::now());
        assert_eq!(due.len(), 1);
        assert_eq!(
            tracks.lags(&versions(1..2, 9)),
            BTreeMap::from([("a".into(), 4), ("b".into(), 4)])
        );
    }

    #[test]
    fn moves_are_asked_for_until_they_are_answered() {
        let mut tracks = Tracks::default();
        tracks.list((1..4).map(|region| listed(region, "h", 5, Tail)).collect());
        let versions = versions(1..4, 9);
        let now = Instant::now();
        for (one, to) in tracks.begin(&versions, |_| true, now).iter().zip([7, 8, 9]) {
            tracks.end(&one.cursor, Some(Move::To(ManifestVersion(to), Tail)), false, now);
        }
        let asked = tracks.moves();
        assert_eq!(asked.len(), 3);
        assert_eq!((asked[1].region_id, asked[1].expected_version, asked[1].version), (2, 5, 8));
        assert_eq!(tracks.moves(), asked, "no answer came");
        assert!(tracks.begin(&versions, |_| true, now).is_empty());
        // The first was moved, another node has moved the second, the third is gone.
        let answer = vec![
            listed(1, "h", 7, Tail).cursor.unwrap(),
            listed(2, "h", 6, Lagged).cursor.unwrap(),
        ];
        tracks.moved(&asked, answer);
        assert!(tracks.moves().is_empty());
        let due = tracks.begin(&versions, |_| true, now);
        assert_eq!(regions(&due), [1, 2]);
        assert_eq!(due[1].cursor.state, Lagged);
    }

    #[test]
    fn what_is_not_listed_is_gone_and_a_late_turn_of_it_counts_for_nothing() {
        let mut tracks = Tracks::default();
        tracks.list(vec![listed(1, "h", 5, Tail)]);
        let now = Instant::now();
        let due = tracks.begin(&versions(1..2, 9), |_| true, now);
        tracks.list(Vec::new());
        let again = ListedCursor {
            cursor: Some(HookCursor { generation: 99, ..listed(1, "h", 8, Tail).cursor.unwrap() }),
            dropped: false,
        };
        tracks.list(vec![again]);
        tracks.end(&due[0].cursor, Some(Move::To(ManifestVersion(6), Tail)), false, now);
        assert!(tracks.moves().is_empty());
        let mine = cursor(1, "h", 5, Tail);
        assert_eq!(tracks.end(&mine, None, true, now), None);
    }
}
