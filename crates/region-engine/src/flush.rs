//! Flush: merges frozen runs, encodes them on a blocking thread, and streams the bytes to the
//! object store. The region commits the files to the manifest.
//!
//! The encoder never holds more than a few parts of a file. It waits when the store is slow, and its
//! worker permit is free for other work during the wait.

mod encode;
pub(crate) mod series;
pub(crate) mod upload;

use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;

pub(crate) use self::encode::FlushPlan;
use self::encode::encode;
use self::upload::upload;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::hooks::SstFileInfo;
use crate::memtable::Run;
use crate::workers::on_worker;

/// Parts of files in flight between the encoder and the store.
pub(crate) const PARTS_IN_FLIGHT: usize = 2;

/// Writes the merged rows of some runs as new files, which are in no manifest yet. Without rows, no
/// file is written.
///
/// # Errors
/// After an error no file is live; objects may remain, which are garbage.
pub(crate) async fn write_files(
    env: &RegionEnv,
    plan: FlushPlan,
    runs: Vec<Arc<Run>>,
    gc_floor_ms: u64,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
    let dir = plan.dir;
    let encoder = on_worker(&env.workers, move |slot| encode(&plan, &runs, sender, slot));
    let (encoded, uploaded) =
        tokio::join!(encoder, upload(env, dir, gc_floor_ms, receiver, pending()));
    // When the upload failed, the encoder's error is only that the receiver has ended.
    let files = uploaded?;
    encoded?;
    Ok(files)
}
