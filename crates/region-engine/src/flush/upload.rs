//! I/O-bound half of a flush: uploads files to the object store.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use tidewater_common::ids::FileId;
use tokio::sync::mpsc;

use super::series::FilePart;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::hooks::SstFileInfo;
use crate::layout::RegionDir;
use crate::storage::{Storage, StorageError, Upload};

/// Files up to this size, in bytes, are written with one put, which is one request and can be
/// repeated.
const SMALL_FILE: usize = 8 << 20;

/// Timeout of aborting the upload of an unfinished file.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes files while their parts arrive, and assigns their ids. Ends with the error of `end` when
/// that resolves. The parts of an unfinished file are not objects, so garbage collection would not
/// find them: its upload is aborted, however this ends.
pub(crate) async fn upload(
    env: &RegionEnv,
    dir: RegionDir,
    gc_floor_ms: u64,
    mut parts: mpsc::Receiver<FilePart>,
    end: impl Future<Output = EngineError>,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let mut unfinished = None;
    let written = tokio::select! {
        written = write(env, dir, gc_floor_ms, &mut parts, &mut unfinished) => written,
        error = end => Err(error),
    };
    // The encoder need not wait for the abort.
    drop(parts);
    if let Some(UploadingFile { upload: Some(upload), path, .. }) = unfinished
        && tokio::time::timeout(ABORT_TIMEOUT, upload.abort()).await.is_err()
    {
        tracing::debug!(%path, "aborting an upload takes long; it continues in the background");
    }
    written
}

/// Writes the files. `object`: the file in progress.
async fn write(
    env: &RegionEnv,
    dir: RegionDir,
    gc_floor_ms: u64,
    parts: &mut mpsc::Receiver<FilePart>,
    object: &mut Option<UploadingFile>,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let mut files = Vec::new();
    while let Some(part) = parts.recv().await {
        let current = object.get_or_insert_with(|| UploadingFile::new(env, dir, gc_floor_ms));
        match part {
            FilePart::Bytes(bytes) => current.write(&env.storage, bytes).await?,
            FilePart::End(written) => {
                let size = current.finish(&env.storage).await?;
                if size != written.size() {
                    return Err(EngineError::Internal {
                        detail: format!(
                            "uploaded {size} bytes of a file of {} bytes",
                            written.size()
                        ),
                    });
                }
                files.push(written.with_id(current.file_id));
                *object = None;
            }
        }
    }
    Ok(files)
}

/// A file in progress; buffered until it is known whether it is small.
struct UploadingFile {
    file_id: FileId,
    path: Path,
    buffered: BytesMut,
    upload: Option<Upload>,
}

impl UploadingFile {
    fn new(env: &RegionEnv, dir: RegionDir, gc_floor_ms: u64) -> Self {
        let file_id = env.ids.file_id(env.clock.now_ms(), gc_floor_ms);
        Self { file_id, path: dir.data(file_id), buffered: BytesMut::new(), upload: None }
    }

    async fn write(&mut self, storage: &Storage, bytes: Bytes) -> Result<(), StorageError> {
        if let Some(upload) = &mut self.upload {
            return upload.write(bytes).await;
        }
        self.buffered.extend_from_slice(&bytes);
        if self.buffered.len() <= SMALL_FILE {
            return Ok(());
        }
        let upload = self.upload.insert(storage.upload(&self.path).await?);
        upload.write(self.buffered.split().freeze()).await
    }

    async fn finish(&mut self, storage: &Storage) -> Result<u64, StorageError> {
        if let Some(upload) = &mut self.upload {
            return Ok(upload.finish().await?.bytes);
        }
        let bytes = self.buffered.split().freeze();
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
    async fn abort_waits_for_the_store_but_not_the_encoder() {
        let store = FaultyStore::new();
        let ends = Arc::new(AtomicBool::new(false));
        let long = 2 * ABORT_TIMEOUT;
        let slow = ends.clone();
        store.plan(move |call| {
            if call.operation == Operation::Upload && slow.load(SeqCst) {
                Fault::Slow(long)
            } else {
                Fault::None
            }
        });
        let options = StorageOptions::default();
        let env = env(Storage::new(Arc::new(store.clone()), "faulty://store", options));
        let (sender, receiver) = mpsc::channel(2);
        let end = Notify::new();
        let started = Instant::now();
        let cancelled = async {
            end.notified().await;
            EngineError::Closed { region: RegionId(1) }
        };
        let (result, encoder_waited) =
            tokio::join!(upload(&env, DIR, 0, receiver, cancelled), async {
                let bytes = Bytes::from(vec![7; SMALL_FILE + 1]);
                sender.send(FilePart::Bytes(bytes)).await.unwrap();
                while store.open_uploads() == 0 {
                    tokio::task::yield_now().await;
                }
                ends.store(true, SeqCst);
                end.notify_one();
                sender.closed().await;
                started.elapsed()
            });
        assert!(matches!(result, Err(EngineError::Closed { .. })), "{result:?}");
        assert!(
            encoder_waited < ABORT_TIMEOUT && started.elapsed() >= ABORT_TIMEOUT,
            "{encoder_waited:?}"
        );
        assert_eq!(store.open_uploads(), 1);
        tokio::time::sleep(long).await;
        assert_eq!(store.open_uploads(), 0, "the abort continues without a waiter");
    }
}
