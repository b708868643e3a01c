//! Store of the writers of a target.
//!
//! The library's writer neither limits the time of its requests nor removes the parts of an object that it does not
//! complete. Its errors repeat the texts of a server, which a caller must not read. This store does both for the writer,
//! and returns errors of the target.

use std::fmt;

use async_trait::async_trait;
use futures::future::ready;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::runtime::Handle;

use super::{Target, TargetError};

const STORE: &str = "target";

/// Store of the writers of a target.
#[derive(Debug)]
pub(super) struct WriterStore {
    target: Target,
}

impl WriterStore {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }
}

impl fmt::Display for WriterStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE} {}", self.target.url())
    }
}

#[async_trait]
impl ObjectStore for WriterStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.target.check(location).await.map_err(failed)?;
        let put = self.target.store.put_opts(location, payload, options);
        self.target.request(location, put).await.map_err(failed)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.target.check(location).await.map_err(failed)?;
        let started = self.target.store.put_multipart_opts(location, options);
        let upload = self.target.request(location, started).await.map_err(failed)?;
        let target = self.target.clone();
        Ok(Box::new(TargetUpload { target, path: location.clone(), upload: Some(upload) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.target.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.target.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.target.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.target.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.target.store.copy_opts(from, to, options).await
    }
}

/// Upload of an object in parts. If it is dropped before it was completed, it is aborted: S3 keeps the parts and charges for
/// them, and no listing shows them.
struct TargetUpload {
    target: Target,
    path: Path,
    /// `None` after it was completed or aborted.
    upload: Option<Box<dyn MultipartUpload>>,
}

impl fmt::Debug for TargetUpload {
    // An upload shows the keys of its store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TargetUpload").field(&self.target).field(&self.path).finish()
    }
}

#[async_trait]
impl MultipartUpload for TargetUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(upload) = &mut self.upload else {
            return Box::pin(ready(Err(ended(&self.path))));
        };
        let part = upload.put_part(data);
        let target = self.target.clone();
        let path = self.path.clone();
        Box::pin(async move { target.request(&path, part).await.map_err(failed) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(upload) = &mut self.upload else { return Err(ended(&self.path)) };
        let completed = self.target.request(&self.path, upload.complete()).await.map_err(failed)?;
        self.upload = None;
        Ok(completed)
    }

    async fn abort(&mut self) -> Result<()> {
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        self.target.request(&self.path, upload.abort()).await.map_err(failed)
    }
}

impl Drop for TargetUpload {
    fn drop(&mut self) {
        // The parts of a process that was killed, or whose store does not answer, remain in the store.
        if let Some(mut upload) = self.upload.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let target = self.target.clone();
            let path = self.path.clone();
            runtime.spawn(async move { target.request(&path, upload.abort()).await });
        }
    }
}

fn failed(error: TargetError) -> Error {
    Error::Generic { store: STORE, source: Box::new(error) }
}

fn ended(path: &Path) -> Error {
    failed(TargetError::Invalid(format!("the upload of {path} was completed or aborted")))
}
