//! Upload of an object in parts.

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::{Operation, Storage, StorageError};

/// An object that is being written in parts: invisible until [`Upload::finish`]. If the upload ends
/// earlier, by an error or a drop, it is aborted in the store: S3 keeps the parts and charges for
/// them, and no listing shows them.
pub struct Upload {
    storage: Storage,
    path: Path,
    /// `None` after it was finished or aborted.
    upload: Option<Box<dyn MultipartUpload>>,
    buffer: BytesMut,
    /// Parts in flight. Each is a task: a part progresses, and its timeouts are observed, also while
    /// the writer computes.
    parts: JoinSet<Result<(), StorageError>>,
    bytes: u64,
    checksum: u32,
}

/// Result of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// Size of the object in bytes.
    pub bytes: u64,
    /// crc32c of the whole object.
    pub checksum: u32,
}

impl Upload {
    pub(super) async fn start(storage: Storage, path: Path) -> Result<Self, StorageError> {
        let upload = super::retry::idempotent(&storage.inner.options, || {
            storage.with_deadline(
                Operation::Upload,
                &path,
                storage.inner.store.put_multipart(&path),
            )
        })
        .await?;
        Ok(Self {
            storage,
            path,
            upload: Some(upload),
            buffer: BytesMut::new(),
            parts: JoinSet::new(),
            bytes: 0,
            checksum: 0,
        })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes; waits while too many parts are in flight.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.bytes += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        let part_bytes = self.storage.inner.options.part_bytes;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = part_bytes.saturating_sub(self.buffer.len()).max(1);
            let piece = rest.split_to(room.min(rest.len()));
            if self.buffer.is_empty() && piece.len() >= part_bytes {
                self.send(piece).await?;
            } else {
                self.buffer.extend_from_slice(&piece);
                if self.buffer.len() >= part_bytes {
                    let part = self.buffer.split().freeze();
                    self.send(part).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes the remaining bytes and makes the object visible. After success, nothing more may be
    /// written.
    pub async fn finish(&mut self) -> Result<Uploaded, StorageError> {
        // S3 rejects an upload without parts.
        if !self.buffer.is_empty() || self.bytes == 0 {
            let part = self.buffer.split().freeze();
            self.send(part).await?;
        }
        while !self.parts.is_empty() {
            self.wait_for_part().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.storage.with_deadline(Operation::Upload, &self.path, upload.complete()).await?;
        }
        self.upload = None;
        Ok(Uploaded { bytes: self.bytes, checksum: self.checksum })
    }

    /// Aborts the upload and waits until the store has dropped the parts, or has failed to. The
    /// abort also completes if this future is dropped.
    pub async fn abort(mut self) {
        if let Some(aborting) = self.start_abort() {
            // The task does not panic. When its runtime has ended, the caller has ended too.
            let _ = aborting.await;
        }
    }

    /// Aborts the upload in the store, in the background.
    fn start_abort(&mut self) -> Option<JoinHandle<()>> {
        let mut upload = self.upload.take()?;
        let mut parts = std::mem::take(&mut self.parts);
        parts.abort_all();
        let runtime = Handle::try_current().ok()?;
        let storage = self.storage.clone();
        let path = self.path.clone();
        Some(runtime.spawn(async move {
            // The store would keep a part that arrives after the abort.
            while parts.join_next().await.is_some() {}
            let aborted = storage.with_deadline(Operation::Upload, &path, upload.abort()).await;
            if let Err(error) = aborted {
                tracing::debug!(%path, %error, "failed to abort an upload; the store may keep its parts");
            }
        }))
    }

    async fn send(&mut self, part: Bytes) -> Result<(), StorageError> {
        while self.parts.len() >= self.storage.inner.options.parts_in_flight.max(1) {
            self.wait_for_part().await?;
        }
        debug_assert!(self.upload.is_some(), "{} is finished", self.path);
        if let Some(upload) = &mut self.upload {
            let part = upload.put_part(PutPayload::from(part));
            let storage = self.storage.clone();
            let path = self.path.clone();
            self.parts
                .spawn(async move { storage.with_deadline(Operation::Upload, &path, part).await });
        }
        Ok(())
    }

    async fn wait_for_part(&mut self) -> Result<(), StorageError> {
        match self.parts.join_next().await {
            None => Ok(()),
            Some(Ok(done)) => done,
            Some(Err(error)) => {
                let source =
                    object_store::Error::Generic { store: "upload", source: Box::new(error) };
                Err(StorageError::store(Operation::Upload, self.storage.name(&self.path), source))
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        drop(self.start_abort());
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("path", &self.path).field("bytes", &self.bytes).finish()
    }
}
