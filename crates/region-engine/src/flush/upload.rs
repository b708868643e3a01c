//! The half of a flush that waits for the object store.

use std::pin::pin;
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
/// resolves.
pub(crate) async fn upload(
    env: &RegionEnv,
    dir: RegionDir,
    gc_floor_ms: u64,
    mut parts: mpsc::Receiver<Part>,
    end: impl Future<Output = EngineError>,
) -> Result<Vec<SstFileInfo>, EngineError> {
    let mut files = Vec::new();
    let mut object: Option<Object> = None;
    let mut end = pin!(end);
    loop {
        let part = tokio::select! {
            part = parts.recv() => part,
            error = &mut end => {
                abandon(object).await;
                return Err(error);
            }
        };
        let Some(part) = part else { break };
        let mut current = match object.take() {
            Some(current) => current,
            None => Object::new(env, dir, gc_floor_ms),
        };
        match part {
            Part::Bytes(bytes) => {
                let written = tokio::select! {
                    written = current.write(&env.storage, bytes) => written.map_err(EngineError::from),
                    error = &mut end => Err(error),
                };
                if let Err(error) = written {
                    abandon(Some(current)).await;
                    return Err(error);
                }
                object = Some(current);
            }
            Part::End(written) => {
                let file_id = current.file_id;
                let size = tokio::select! {
                    size = current.finish(&env.storage) => size?,
                    error = &mut end => return Err(error),
                };
                if size != written.size() {
                    return Err(EngineError::Internal {
                        detail: format!("{size} bytes were uploaded, {} written", written.size()),
                    });
                }
                files.push(written.named(file_id));
            }
        }
    }
    // The encoder gave up in the middle of a file: what the store holds of it is no object that
    // garbage collection would find.
    abandon(object).await;
    Ok(files)
}

async fn abandon(object: Option<Object>) {
    if let Some(unfinished) = object {
        let path = unfinished.path.clone();
        if tokio::time::timeout(ABANDON, unfinished.abandon()).await.is_err() {
            tracing::debug!(%path, "parts of a file may be left behind");
        }
    }
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
        if self.upload.is_none() {
            self.held.extend_from_slice(&bytes);
            if self.held.len() <= SMALL_FILE {
                return Ok(());
            }
            let mut upload = storage.upload(&self.path).await?;
            upload.write(self.held.split().freeze()).await?;
            self.upload = Some(upload);
            return Ok(());
        }
        match &mut self.upload {
            Some(upload) => upload.write(bytes).await,
            None => Ok(()),
        }
    }

    async fn abandon(self) {
        if let Some(upload) = self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(path = %self.path, %error, "parts of a file may be left behind");
        }
    }

    async fn finish(mut self, storage: &Storage) -> Result<u64, StorageError> {
        match self.upload {
            Some(upload) => Ok(upload.finish().await?.bytes),
            None => {
                let bytes = self.held.split().freeze();
                let size = bytes.len() as u64;
                storage.put(&self.path, bytes).await?;
                Ok(size)
            }
        }
    }
}
