//! The half of a flush that waits for the object store.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use tidewater_common::ids::FileId;
use tokio::sync::mpsc;

use super::series::Part;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::hooks::SstFileInfo;
use crate::layout::RegionDir;
use crate::storage::{Storage, StorageError, Upload};

/// Files up to this size are written with one put, which is one request and can be repeated.
const SMALL_FILE: usize = 8 << 20;

/// How long the store may take to forget the parts of a file that is given up.
const ABANDON: Duration = Duration::from_secs(5);

/// Writes the files as their parts come, and names them. Ends with the error of `end` when that
/// resolves. What the store holds of a file that was not finished is no object that garbage collection
/// would find: it has been told to forget it, however this ends.
pub(crate) async fn upload(
    env: &RegionEnv,
    dir: RegionDir,
    gc_floor_ms: u64,
    mut parts: mpsc::Receiver<Part>,
    end: impl Future<Output = EngineError>,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let mut unfinished = None;
    let written = tokio::select! {
        written = write(env, dir, gc_floor_ms, &mut parts, &mut unfinished) => written,
        error = end => Err(error),
    };
    // The encoder need not wait for what follows.
    drop(parts);
    if let Some(Object { upload: Some(upload), path, .. }) = unfinished
        && tokio::time::timeout(ABANDON, upload.abort()).await.is_err()
    {
        tracing::debug!(%path, "the store takes long to forget the parts of a file");
    }
    written
}

/// `object`: the file that is being written.
async fn write(
    env: &RegionEnv,
    dir: RegionDir,
    gc_floor_ms: u64,
    parts: &mut mpsc::Receiver<Part>,
    object: &mut Option<Object>,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let mut files = Vec::new();
    while let Some(part) = parts.recv().await {
        let current = object.get_or_insert_with(|| Object::new(env, dir, gc_floor_ms));
        match part {
            Part::Bytes(bytes) => current.write(&env.storage, bytes).await?,
            Part::End(written) => {
                let size = current.finish(&env.storage).await?;
                if size != written.size() {
                    return Err(EngineError::Internal {
                        detail: format!("{size} bytes were uploaded, {} written", written.size()),
                    });
                }
                files.push(written.named(current.file_id));
                *object = None;
            }
        }
    }
    Ok(files)
}

/// A file that is being written: held back until it is known whether it is small.
struct Object {
    file_id: FileId,
    path: Path,
    held: BytesMut,
    upload: Option<Upload>,
}

impl Object {
    fn new(env: &RegionEnv, dir: RegionDir, gc_floor_ms: u64) -> Self {
        let file_id = env.ids.file_id(env.clock.now_ms(), gc_floor_ms);
        Self { file_id, path: dir.data(file_id), held: BytesMut::new(), upload: None }
    }

    async fn write(&mut self, storage: &Storage, bytes: Bytes) -> Result<(), StorageError> {
        if let Some(upload) = &mut self.upload {
            return upload.write(bytes).await;
        }
        self.held.extend_from_slice(&bytes);
        if self.held.len() <= SMALL_FILE {
            return Ok(());
        }
        let upload = self.upload.insert(storage.upload(&self.path).await?);
        upload.write(self.held.split().freeze()).await
    }

    async fn finish(&mut self, storage: &Storage) -> Result<u64, StorageError> {
        if let Some(upload) = &mut self.upload {
            return Ok(upload.finish().await?.bytes);
        }
        let bytes = self.held.split().freeze();
        let size = bytes.len() as u64;
        storage.put(&self.path, bytes).await?;
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::SeqCst;

    use tidewater_common::ids::RegionId;
    use tokio::sync::Notify;
    use tokio::time::Instant;

    use super::*;
    use crate::manifest::samples::{DIR, env};
    use crate::storage::testing::{Fault, FaultyStore};
    use crate::storage::{Operation, StorageOptions};

    #[tokio::test(start_paused = true)]
    async fn who_ends_an_upload_waits_a_little_for_the_store_to_forget_it_and_the_encoder_not() {
        let store = FaultyStore::new();
        let (ends, long) = (Arc::new(AtomicBool::new(false)), 2 * ABANDON);
        let slow = ends.clone();
        store.plan(move |call| match call.operation == Operation::Upload && slow.load(SeqCst) {
            true => Fault::Slow(long),
            false => Fault::None,
        });
        let options = StorageOptions::default();
        let env = env(Storage::new(Arc::new(store.clone()), "faulty://store", options));
        let (sender, receiver) = mpsc::channel(2);
        let (end, began) = (Notify::new(), Instant::now());
        let cancelled = async {
            end.notified().await;
            EngineError::Closed { region: RegionId(1) }
        };
        let (result, encoder_waited) =
            tokio::join!(upload(&env, DIR, 0, receiver, cancelled), async {
                let bytes = Bytes::from(vec![7; SMALL_FILE + 1]);
                sender.send(Part::Bytes(bytes)).await.unwrap();
                while store.open_uploads() == 0 {
                    tokio::task::yield_now().await;
                }
                ends.store(true, SeqCst);
                end.notify_one();
                sender.closed().await;
                began.elapsed()
            });
        assert!(matches!(result, Err(EngineError::Closed { .. })), "{result:?}");
        assert!(encoder_waited < ABANDON && began.elapsed() >= ABANDON, "{encoder_waited:?}");
        assert_eq!(store.open_uploads(), 1);
        tokio::time::sleep(long).await;
        assert_eq!(store.open_uploads(), 0, "it goes on when nobody waits");
    }
}
