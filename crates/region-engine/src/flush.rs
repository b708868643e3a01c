//! From runs to files: merges frozen runs, encodes them off the runtime, and streams the bytes to
//! the object store as they come. Naming the files in the manifest is the region's business.
//!
//! The encoder runs on a blocking thread and never holds more than a few parts of a file; when the
//! store is slow it waits.

mod encode;
pub(crate) mod series;
pub(crate) mod upload;

use std::future::pending;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

pub(crate) use self::encode::FlushPlan;
use self::encode::encode;
use self::upload::upload;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::hooks::SstFileInfo;
use crate::memtable::Run;

/// Parts of files on their way from the encoder to the store.
pub(crate) const PARTS_UNDER_WAY: usize = 2;

/// Writes the rows of some runs, merged, as new files; they are in no manifest yet. No file when no
/// row is left.
///
/// # Errors
/// Nothing is live after any error; objects may have been left behind, which are garbage.
pub(crate) async fn write_files(
    env: &RegionEnv,
    plan: FlushPlan,
    runs: Vec<Arc<Run>>,
    gc_floor_ms: u64,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let (sender, receiver) = mpsc::channel(PARTS_UNDER_WAY);
    let dir = plan.dir;
    let encoder = on_worker(&env.workers, move || encode(&plan, &runs, sender));
    let (encoded, uploaded) =
        tokio::join!(encoder, upload(env, dir, gc_floor_ms, receiver, pending()));
    // When the upload failed, all the encoder can say is that nobody took its parts.
    let files = uploaded?;
    encoded?;
    Ok(files)
}

/// Runs work that keeps a core busy on a blocking thread, as many at once as there are permits.
pub(crate) async fn on_worker<T: Send + 'static>(
    workers: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let permit = workers.clone().acquire_owned().await;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    match done.await {
        Ok(result) => result,
        Err(error) => Err(EngineError::Internal {
            detail: format!("a merge did not come to its end: {error}"),
        }),
    }
}
