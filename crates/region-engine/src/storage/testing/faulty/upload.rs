//! Upload in parts to a faulty store: each part, the completion and the abort are calls of
//! [`Operation::Upload`].

use std::fmt;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::{Fault, FaultyStore};
use crate::storage::Operation;

/// Upload that injects faults. Counted by [`FaultyStore::open_uploads`] until it is completed or
/// aborted.
pub(super) struct FaultyUpload {
    store: FaultyStore,
    path: Path,
    inner: Box<dyn MultipartUpload>,
    open: bool,
}

impl FaultyUpload {
    pub(super) fn new(store: FaultyStore, path: Path, inner: Box<dyn MultipartUpload>) -> Self {
        store.shared.open_uploads.fetch_add(1, Ordering::Relaxed);
        Self { store, path, inner, open: true }
    }
}

/// Records that the store has no parts of an upload any more.
fn mark_closed(store: &FaultyStore, open: &mut bool) {
    if std::mem::take(open) {
        store.shared.open_uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = self.store.fault(Operation::Upload, &self.path);
        let part = match fault {
            Fault::ErrorBefore => std::future::ready(Ok(())).boxed(),
            _ => self.inner.put_part(data),
        };
        let store = self.store.clone();
        let path = self.path.clone();
        async move { store.inject(fault, &path, part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.fault(Operation::Upload, &self.path);
        let store = &self.store;
        let inner = &mut self.inner;
        let open = &mut self.open;
        let complete = async move {
            let done = inner.complete().await?;
            mark_closed(store, open);
            Ok(done)
        };
        store.inject(fault, &self.path, complete).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.store.fault(Operation::Upload, &self.path);
        let store = &self.store;
        let inner = &mut self.inner;
        let open = &mut self.open;
        let abort = async move {
            inner.abort().await?;
            mark_closed(store, open);
            Ok(())
        };
        store.inject(fault, &self.path, abort).await
    }
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyUpload").field("path", &self.path).finish_non_exhaustive()
    }
}
