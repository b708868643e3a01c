//! One turn: reads what comes after a cursor and tells it to the hook.

use std::time::Duration;

use tidewater_common::ids::ManifestVersion;
use tidewater_proto::v1::CursorState;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::env::RegionEnv;
use tidewater_region_engine::hooks::{DurableHook, HookError, RegionSnapshot};
use tidewater_region_engine::manifest::history::{History, PastDelta, history, snapshot};
use tokio::time::Instant;

use super::cursor::{Cursor, Move};

/// Versions of one turn: what is told again after a crash, and what is in memory.
const VERSIONS: u64 = 64;
/// A turn with a slow hook ends early, so that its cursor moves.
const LONGEST: Duration = Duration::from_secs(10);

/// What came of a turn.
#[derive(Debug, Default)]
pub(super) struct Turned {
    /// Where the cursor goes; `None`: it stays.
    pub(super) to: Option<Move>,
    /// Why it did not go further.
    pub(super) failed: Option<TurnError>,
}

/// Why a turn came to an early end.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The hook did not take it.
    #[error("the hook did not take it: {0}")]
    Hook(#[from] HookError),
}

/// Tells a hook what comes next. `dropped`: nothing more will be committed to the region. May be
/// dropped at any point: what was told is told again.
pub(super) async fn turn(
    env: &RegionEnv,
    cursor: &Cursor,
    dropped: bool,
    hook: &DurableHook,
) -> Turned {
    let begun = match cursor.state {
        CursorState::Now => now(env, cursor).await,
        CursorState::From => find(env, cursor).await,
        CursorState::Start | CursorState::Lagged => bootstrap(env, cursor, hook).await,
        CursorState::Tail => return tail(env, cursor, dropped, hook).await,
        CursorState::Gone | CursorState::Unspecified => return Turned::default(),
    };
    match begun {
        Ok(to) => Turned { to: Some(to), failed: None },
        Err(error) => Turned { to: None, failed: Some(error) },
    }
}

async fn now(env: &RegionEnv, cursor: &Cursor) -> Result<Move, TurnError> {
    let state = snapshot(env, cursor.dir).await?;
    Ok(Move::To(state.version, CursorState::Tail))
}

async fn find(env: &RegionEnv, cursor: &Cursor) -> Result<Move, TurnError> {
    let found = match history(env, cursor.dir, cursor.version, 1).await? {
        History::Deltas(_) => CursorState::Tail,
        History::Current | History::Ended | History::Lagged => CursorState::Gone,
    };
    Ok(Move::To(cursor.version, found))
}

async fn bootstrap(
    env: &RegionEnv,
    cursor: &Cursor,
    hook: &DurableHook,
) -> Result<Move, TurnError> {
    let state = snapshot(env, cursor.dir).await?;
    let version = state.version;
    // A region that is being opened has nothing to show.
    if version.get() > 0 {
        hook.bootstrap(RegionSnapshot::new(state)).await?;
    }
    Ok(Move::To(version, CursorState::Tail))
}

async fn tail(env: &RegionEnv, cursor: &Cursor, dropped: bool, hook: &DurableHook) -> Turned {
    let found = match history(env, cursor.dir, cursor.version, VERSIONS).await {
        Ok(found) => found,
        Err(error) => return Turned { to: None, failed: Some(error.into()) },
    };
    let to = match found {
        History::Deltas(past) => return tell(&past, hook).await,
        // Never opened: its table was dropped before.
        History::Current if dropped => Some(Move::Done),
        History::Current => None,
        History::Ended => Some(Move::Done),
        History::Lagged => Some(Move::To(cursor.version, CursorState::Lagged)),
    };
    Turned { to, failed: None }
}

/// Tells one version after the other, until one is not taken.
async fn tell(past: &[PastDelta], hook: &DurableHook) -> Turned {
    let until = Instant::now() + LONGEST;
    let mut told: Option<ManifestVersion> = None;
    let mut failed = None;
    for one in past {
        if Instant::now() >= until || hook.is_paused() {
            break;
        }
        if let Err(error) = hook.manifest_updated(one).await {
            failed = Some(error.into());
            break;
        }
        told = Some(one.delta.version);
    }
    Turned { to: told.map(|version| Move::To(version, CursorState::Tail)), failed }
}
