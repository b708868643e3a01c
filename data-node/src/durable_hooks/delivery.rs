//! One delivery: reads the manifest versions after a cursor and calls the hook with them.

use std::time::Duration;

use tidewater_common::agreed_limits::CURSOR_VERSIONS_PER_MOVE;
use tidewater_common::ids::ManifestVersion;
use tidewater_proto::v1::CursorState;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::hooks::{
    DurableHook, EventSource, FileStatisticsReader, HookError, RegionSnapshot,
};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::history::{
    History, PastDelta, history_with_files, snapshot,
};
use tokio::time::Instant;

use super::cursor::{Cursor, CursorMove};

/// Duration after which a delivery to a slow hook ends early, so that its cursor moves.
const MAX_DURATION: Duration = Duration::from_secs(10);

/// Outcome of a delivery.
#[derive(Debug, Default)]
pub(super) struct DeliveryOutcome {
    /// Move of the cursor; `None`: it stays.
    pub(super) to: Option<CursorMove>,
    /// Error that ended the delivery early.
    pub(super) error: Option<DeliveryError>,
}

/// Error that ended a delivery early.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The hook did not accept a version.
    #[error("the hook did not accept the version: {0}")]
    Hook(#[from] HookError),
}

/// Delivers the next versions to a hook. `dropped`: nothing more will be committed to the region. The
/// future may be dropped at any point: versions that were delivered are delivered again.
pub(super) async fn deliver(
    env: &RegionEnv,
    cursor: &Cursor,
    dropped: bool,
    hook: &DurableHook,
) -> DeliveryOutcome {
    let started = match cursor.state {
        CursorState::Now => start_at_now(env, cursor).await,
        CursorState::From => start_at_version(env, cursor).await,
        CursorState::Start | CursorState::Lagged => bootstrap(env, cursor, hook).await,
        CursorState::Tail => return follow_tail(env, cursor, dropped, hook).await,
        CursorState::Gone | CursorState::Unspecified => return DeliveryOutcome::default(),
    };
    match started {
        Ok(to) => DeliveryOutcome { to: Some(to), error: None },
        Err(error) => DeliveryOutcome { to: None, error: Some(error) },
    }
}

/// Returns the source of a region's events.
fn event_source(env: &RegionEnv, dir: RegionDir) -> EventSource {
    let statistics = FileStatisticsReader::new(env.storage.clone(), env.footers.clone());
    let table_name = env.plugins.table_name(dir.table_id);
    EventSource { dir, table_name, statistics: Some(statistics) }
}

async fn start_at_now(env: &RegionEnv, cursor: &Cursor) -> Result<CursorMove, DeliveryError> {
    let state = snapshot(env, cursor.dir).await?;
    Ok(CursorMove::To(state.version, CursorState::Tail))
}

async fn start_at_version(env: &RegionEnv, cursor: &Cursor) -> Result<CursorMove, DeliveryError> {
    let found = match history_with_files(env, cursor.dir, cursor.version, 1).await? {
        History::Deltas(_) => CursorState::Tail,
        History::Current | History::Ended | History::Lagged => CursorState::Gone,
    };
    Ok(CursorMove::To(cursor.version, found))
}

async fn bootstrap(
    env: &RegionEnv,
    cursor: &Cursor,
    hook: &DurableHook,
) -> Result<CursorMove, DeliveryError> {
    let state = snapshot(env, cursor.dir).await?;
    let version = state.version;
    // A region that is being opened has no version yet.
    if version.get() > 0 {
        hook.bootstrap(&event_source(env, cursor.dir), RegionSnapshot::new(state)).await?;
    }
    Ok(CursorMove::To(version, CursorState::Tail))
}

async fn follow_tail(
    env: &RegionEnv,
    cursor: &Cursor,
    dropped: bool,
    hook: &DurableHook,
) -> DeliveryOutcome {
    let limit = CURSOR_VERSIONS_PER_MOVE;
    let found = match history_with_files(env, cursor.dir, cursor.version, limit).await {
        Ok(found) => found,
        Err(error) => return DeliveryOutcome { to: None, error: Some(error.into()) },
    };
    let to = match found {
        History::Deltas(past) => {
            return deliver_deltas(&event_source(env, cursor.dir), &past, hook).await;
        }
        // The region was never opened: its table was dropped before.
        History::Current if dropped => Some(CursorMove::Done),
        History::Current => match newest_below(env, cursor).await {
            Ok(newest) => newest.map(|newest| CursorMove::To(newest, CursorState::Lagged)),
            Err(error) => return DeliveryOutcome { to: None, error: Some(error) },
        },
        History::Ended => Some(CursorMove::Done),
        History::Lagged => Some(CursorMove::To(cursor.version, CursorState::Lagged)),
    };
    DeliveryOutcome { to, error: None }
}

/// Returns the newest version of a manifest whose cursor is above it. No delivery moves a cursor there:
/// the cursor was moved by mistake, or the manifest was replaced by an older one, and the hook would
/// silently miss all versions up to the cursor.
async fn newest_below(
    env: &RegionEnv,
    cursor: &Cursor,
) -> Result<Option<ManifestVersion>, DeliveryError> {
    let newest = snapshot(env, cursor.dir).await?.version;
    Ok((newest < cursor.version).then_some(newest))
}

/// Delivers one version after the other, until the hook does not accept one.
async fn deliver_deltas(
    source: &EventSource,
    past: &[PastDelta],
    hook: &DurableHook,
) -> DeliveryOutcome {
    let deadline = Instant::now() + MAX_DURATION;
    let mut delivered: Option<ManifestVersion> = None;
    let mut error = None;
    for version in past {
        if Instant::now() >= deadline || hook.is_paused() {
            break;
        }
        if let Err(problem) = hook.manifest_updated(source, version).await {
            error = Some(problem.into());
            break;
        }
        delivered = Some(version.delta.version);
    }
    let to = delivered.map(|version| CursorMove::To(version, CursorState::Tail));
    DeliveryOutcome { to, error }
}
