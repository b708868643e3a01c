//! Cursors that are behind their regions by more than a limit (pure).

use std::collections::BTreeSet;

use tidewater_common::agreed_limits::CURSOR_VERSIONS_PER_MOVE;
use tidewater_common::ids::ManifestVersion;
use tidewater_proto::v1::CursorState;
use tidewater_region_engine::layout::RegionDir;

use super::cursor::CursorKey;
use super::cursor_state::LocalCursorState;
use super::cursor_states::LoadedVersions;

/// Undelivered versions above which a cursor lags: more than a few deliveries.
const LIMIT: u64 = 4 * CURSOR_VERSIONS_PER_MOVE;
/// Undelivered versions up to which a cursor that lagged has recovered: one delivery.
const RECOVERED: u64 = CURSOR_VERSIONS_PER_MOVE;

/// Cursors that lag.
#[derive(Debug, Default)]
pub(super) struct LaggingCursors {
    known: BTreeSet<CursorKey>,
}

/// A cursor that begins to lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LagBegin {
    pub(super) dir: RegionDir,
    pub(super) hook: String,
    pub(super) generation: u64,
    /// Version with which the lag began, the same on every leader that sees the cursor at its position. `None`: versions
    /// were deleted before they were delivered.
    pub(super) version: Option<ManifestVersion>,
    /// Undelivered versions at the begin.
    pub(super) pending: u64,
    /// Error of the last delivery.
    pub(super) cause: Option<String>,
}

impl LagBegin {
    /// `pending`: undelivered versions.
    fn new(state: &LocalCursorState, pending: u64) -> Self {
        let cursor = &state.cursor;
        let first = cursor.version.get().saturating_add(LIMIT + 1);
        let version = (cursor.state == CursorState::Tail).then_some(ManifestVersion(first));
        Self {
            dir: cursor.dir,
            hook: cursor.key.1.clone(),
            generation: cursor.generation,
            version,
            pending: version.map_or(pending, |_| LIMIT + 1),
            cause: state.problem.clone(),
        }
    }
}

impl LaggingCursors {
    /// Returns the cursors that lag and did not before. Cursors that are not listed any more are forgotten.
    pub(super) fn update<'a>(
        &mut self,
        states: impl Iterator<Item = &'a LocalCursorState>,
        versions: &LoadedVersions,
    ) -> Vec<LagBegin> {
        let mut lagging = BTreeSet::new();
        let mut begun = Vec::new();
        for state in states {
            let cursor = &state.cursor;
            let newest = versions.get(&cursor.key.0).map_or(0, |version| version.get());
            let pending = newest.saturating_sub(cursor.version.get());
            let lagged = self.known.contains(&cursor.key);
            if !is_lagging(cursor.state, pending, lagged) {
                continue;
            }
            lagging.insert(cursor.key.clone());
            if !lagged {
                begun.push(LagBegin::new(state, pending));
            }
        }
        self.known = lagging;
        begun
    }
}

/// Returns whether a cursor lags, that lagged before or not.
fn is_lagging(state: CursorState, pending: u64, lagged: bool) -> bool {
    let limit = if lagged { RECOVERED } else { LIMIT };
    match state {
        CursorState::Tail => pending > limit,
        // Versions were deleted before they were delivered.
        CursorState::Lagged => true,
        // The first delivery decides where a cursor begins, and one that is gone has none.
        CursorState::Now
        | CursorState::Start
        | CursorState::From
        | CursorState::Gone
        | CursorState::Unspecified => false,
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::RegionId;

    use super::*;
    use crate::durable_hooks::tests::cursor;

    fn state(region: u64, version: u64, state: CursorState) -> LocalCursorState {
        LocalCursorState::new(cursor(region, "h", version, state), false)
    }

    #[test]
    fn cursor_lags_until_it_has_recovered() {
        use CursorState::{Gone, Lagged, Start, Tail};
        for (of, pending, lagged, expected) in [
            (Tail, LIMIT, false, false),
            (Tail, LIMIT + 1, false, true),
            (Tail, LIMIT, true, true),
            (Tail, RECOVERED, true, false),
            (Lagged, 0, false, true),
            (Start, LIMIT + 1, false, false),
            (Gone, LIMIT + 1, true, false),
        ] {
            assert_eq!(is_lagging(of, pending, lagged), expected, "{of:?} {pending} {lagged}");
        }
    }

    #[test]
    fn begin_of_a_lag_is_returned_once() {
        let newest = 1_000;
        let versions: LoadedVersions =
            [(RegionId(1), ManifestVersion(newest)), (RegionId(2), ManifestVersion(newest))].into();
        let mut lagging = LaggingCursors::default();
        let mut begun = |first: u64, problem: Option<&str>| -> Vec<(u64, u64, Option<String>)> {
            let mut states = [
                state(1, newest - first, CursorState::Tail),
                state(2, newest, CursorState::Tail),
                // Not hosted on this node.
                state(3, 1, CursorState::Tail),
            ];
            states[0].problem = problem.map(str::to_owned);
            let begun = lagging.update(states.iter(), &versions);
            assert!(begun.iter().all(|lag| lag.pending == LIMIT + 1));
            let begun = begun.into_iter().map(|lag| {
                let version = lag.version.unwrap();
                (lag.dir.region_id.get(), version.get(), lag.cause)
            });
            begun.collect()
        };
        assert_eq!(begun(LIMIT, None), []);
        let problem = Some("no route".to_owned());
        assert_eq!(begun(LIMIT + 1, problem.as_deref()), [(1, newest, problem)]);
        assert_eq!(begun(LIMIT + 50, None), []);
        assert_eq!(begun(RECOVERED + 1, None), [], "it lags still");
        assert_eq!(begun(RECOVERED, None), []);
        // The hook began to lag with the version before.
        assert_eq!(begun(LIMIT + 2, None), [(1, newest - 1, None)]);
    }

    #[test]
    fn leaders_see_one_begin_of_a_lag() {
        let begin = |newest: u64, of: CursorState| {
            let versions: LoadedVersions = [(RegionId(1), ManifestVersion(newest))].into();
            let states = [state(1, 5, of)];
            let begun = LaggingCursors::default().update(states.iter(), &versions);
            let [begin] = &begun[..] else { panic!("{begun:?}") };
            (begin.version.map(ManifestVersion::get), begin.pending)
        };
        let first = (Some(5 + LIMIT + 1), LIMIT + 1);
        assert_eq!(begin(5 + LIMIT + 1, CursorState::Tail), first);
        assert_eq!(begin(9_000, CursorState::Tail), first);
        assert_eq!(begin(9_005, CursorState::Lagged), (None, 9_000));
    }
}
