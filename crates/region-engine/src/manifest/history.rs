//! The past of a manifest: the deltas after a version, each with what it did. For those who are told
//! of every version, wherever and whenever they ask.
//!
//! What a delta did follows from the state before it, so reading begins with the newest checkpoint at
//! or below the known version; garbage collection spares that and the deltas after it for as long as
//! somebody waits for them (`gc::awaited`). What counts is decided as for every reader: the manifest is
//! listed again after the deltas were read, and one that a checkpoint covers by then counts only if
//! the checkpoint names its writer. Nothing is kept between two calls.

use std::sync::Arc;

use tidewater_common::ids::ManifestVersion;

use super::announce::delivered_as;
use super::listing::Stretch;
use super::reader::Reader;
use super::{Delta, ManifestState, replay};
use crate::env::RegionEnv;
use crate::error::EngineError;
use crate::hooks::ManifestKind;
use crate::layout::RegionDir;
use crate::storage::sleep_backoff;

/// What follows a version.
#[derive(Debug, Clone)]
pub enum History {
    /// The next deltas, in order; at least one.
    Deltas(Vec<Past>),
    /// Nothing yet.
    Current,
    /// Nothing, and nothing ever will: the region was dropped at or before the version.
    Ended,
    /// Something, but it was cleaned: only a [`snapshot`] tells what has become of the region.
    Lagged,
}

/// One delta of the past.
#[derive(Debug, Clone)]
pub struct Past {
    /// The delta.
    pub delta: Arc<Delta>,
    /// What it was.
    pub manifest: ManifestKind,
}

/// One attempt's end.
enum Look {
    Done(History),
    /// The manifest changed meanwhile, or a listing showed half of a change.
    Again {
        missing: Option<ManifestVersion>,
    },
}

/// What follows `after` in the manifest as it is stored now: at most `most` deltas.
///
/// # Errors
/// The store cannot be read, an object is damaged, or the manifest does not stand still.
pub async fn history(
    env: &RegionEnv,
    dir: RegionDir,
    after: ManifestVersion,
    most: u64,
) -> Result<History, EngineError> {
    let reader = reader(env, dir);
    let mut gap = None;
    for round in 1..=reader.options.read_rounds.max(1) {
        match look(&reader, after, most.max(1)).await? {
            Look::Done(history) => return Ok(history),
            Look::Again { missing } => gap = missing,
        }
        sleep_backoff(reader.options.backoff, reader.options.backoff_limit, round).await;
    }
    Err(reader.unsettled(gap))
}

/// The state at the manifest's tail as it is stored now.
///
/// # Errors
/// As [`history`].
pub async fn snapshot(env: &RegionEnv, dir: RegionDir) -> Result<Arc<ManifestState>, EngineError> {
    let found = reader(env, dir).tail(&ManifestState::empty(dir)).await?;
    Ok(Arc::new(found.state))
}

fn reader(env: &RegionEnv, dir: RegionDir) -> Reader {
    Reader { storage: env.storage.clone(), dir, options: env.options.manifest.clone() }
}

async fn look(reader: &Reader, after: ManifestVersion, most: u64) -> Result<Look, EngineError> {
    let (base, through) = match stretch(reader, after, most).await? {
        Stretch::Read { base, through } => (base, through),
        Stretch::Cleaned => return Ok(Look::Done(History::Lagged)),
        Stretch::Missing { version } => return Ok(Look::Again { missing: Some(version) }),
    };
    let mut state = match base.get() {
        0 => ManifestState::empty(reader.dir),
        _ => match reader.checkpoint(base).await? {
            Some(state) => state,
            None => return Ok(Look::Again { missing: None }),
        },
    };
    let Some(mut deltas) = reader.deltas(base.next(), through).await? else {
        return Ok(Look::Again { missing: None });
    };
    let Some(counted) = counted(reader, base.next(), &deltas).await? else {
        return Ok(Look::Again { missing: None });
    };
    let disowned = deltas.get(counted).map(|delta| delta.version);
    if disowned.is_some_and(|version| version <= after.next()) {
        return Ok(Look::Done(History::Lagged));
    }
    deltas.truncate(counted);
    Ok(Look::Done(replayed(&mut state, deltas, after)))
}

/// What to read, from a listing that reaches back to a checkpoint.
async fn stretch(
    reader: &Reader,
    after: ManifestVersion,
    most: u64,
) -> Result<Stretch, EngineError> {
    // Whoever is far behind leaves many deltas in the store: mostly it need not list them all.
    let near = after.get().saturating_sub(4 * reader.options.checkpoint_every);
    let listing = reader.list(ManifestVersion(near)).await?;
    if near == 0 || listing.checkpoints.first().is_some_and(|first| *first <= after) {
        return Ok(listing.stretch(after, most));
    }
    Ok(reader.list(ManifestVersion(0)).await?.stretch(after, most))
}

/// How many of these deltas count, from the first on; `None`: start over.
async fn counted(
    reader: &Reader,
    first: ManifestVersion,
    deltas: &[Delta],
) -> Result<Option<usize>, EngineError> {
    if deltas.is_empty() {
        return Ok(Some(0));
    }
    let Some(at) = reader.list(first).await?.newest_checkpoint() else {
        return Ok(Some(deltas.len()));
    };
    let Some(newer) = reader.checkpoint(at).await? else { return Ok(None) };
    let counts = |delta: &Delta| delta.version > at || newer.names(delta.version, delta.writer);
    Ok(Some(deltas.iter().position(|delta| !counts(delta)).unwrap_or(deltas.len())))
}

/// The deltas after a version, each with what it did to the state before it.
fn replayed(state: &mut ManifestState, deltas: Vec<Delta>, after: ManifestVersion) -> History {
    let mut past = Vec::new();
    let mut ended = state.is_removed();
    for delta in deltas {
        let outcome = replay::apply(state, &delta);
        if delta.version <= after {
            ended = state.is_removed();
        } else {
            let manifest = delivered_as(&delta, &outcome);
            past.push(Past { delta: Arc::new(delta), manifest });
        }
    }
    match (ended, past.is_empty()) {
        (true, _) => History::Ended,
        (false, true) => History::Current,
        (false, false) => History::Deltas(past),
    }
}

#[cfg(test)]
mod tests;
