//! Faulty store in memory: every call can be made to fail, to return a wrong result, or to wait for
//! a test's step.

mod upload;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use parking_lot::Mutex;

use self::upload::FaultyUpload;
use crate::storage::{Operation, Storage, StorageOptions};
use tidewater_common::backoff::Backoff;

/// Fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call works.
    None,
    /// Fails and has no effect.
    ErrorBefore,
    /// Takes effect, then fails.
    ErrorAfter,
    /// Works after a delay.
    Slow(Duration),
    /// Takes effect; the answer never arrives.
    LostAnswer,
    /// Reports that the name is taken, without storing anything.
    FalseConflict,
    /// Stores the object, and reports that the name was taken.
    StoredConflict,
    /// A put if absent that overwrites silently.
    Overwrite,
    /// A put if absent that overwrites, and reports that the name was taken.
    OverwriteAndRefuse,
    /// A listing without the object that was written last.
    StaleList,
    /// Reports that the object does not exist.
    NotFound,
}

/// One call of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// The object, or the prefix of a listing.
    pub path: Path,
    /// Ordinal of this call among calls of its operation, from 1.
    pub number: u64,
}

type FaultPlan = dyn Fn(&Call) -> Fault + Send + Sync;

/// Store with injected faults. Handles share one store.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<FaultyState>,
    /// Returns `Pending` once before and once after each call, for a test that polls by hand.
    stepped: bool,
}

struct FaultyState {
    plan: Mutex<Arc<FaultPlan>>,
    numbers: Mutex<HashMap<Operation, u64>>,
    last_put: Mutex<Option<Path>>,
    open_uploads: AtomicUsize,
}

impl FaultyStore {
    /// Creates a store in memory without faults.
    pub fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// Injects faults in front of another store.
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        let shared = FaultyState {
            plan: Mutex::new(Arc::new(|_| Fault::None)),
            numbers: Mutex::default(),
            last_put: Mutex::default(),
            open_uploads: AtomicUsize::new(0),
        };
        Self { inner, shared: Arc::new(shared), stepped: false }
    }

    /// Sets the plan, which decides the fault of each call; resets the ordinals of calls.
    pub fn plan(&self, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.shared.plan.lock() = Arc::new(plan);
        self.shared.numbers.lock().clear();
    }

    /// Returns the number of uploads that are neither completed nor aborted: a store keeps their
    /// parts.
    pub fn open_uploads(&self) -> usize {
        self.shared.open_uploads.load(Ordering::Relaxed)
    }

    /// Returns a handle whose calls return `Pending` once before and once after they take effect.
    #[must_use]
    pub fn stepped(&self) -> Self {
        Self { stepped: true, ..self.clone() }
    }

    /// Wraps this handle, with limits for tests.
    pub fn storage(&self) -> Storage {
        let options = StorageOptions {
            deadline: Duration::from_millis(200),
            attempts: 3,
            backoff: Backoff::NONE,
            ..StorageOptions::default()
        };
        Storage::new(Arc::new(self.clone()), "faulty://store", options)
    }

    fn fault(&self, operation: Operation, path: &Path) -> Fault {
        let number = {
            let mut numbers = self.shared.numbers.lock();
            let number = numbers.entry(operation).or_default();
            *number += 1;
            *number
        };
        let plan = Arc::clone(&self.shared.plan.lock());
        plan(&Call { operation, path: path.clone(), number })
    }

    async fn inject<T>(
        &self,
        fault: Fault,
        path: &Path,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.step().await;
        match fault {
            Fault::ErrorBefore => return Err(injected("before")),
            Fault::FalseConflict => return Err(conflict(path)),
            Fault::NotFound => {
                let source = "injected".into();
                return Err(Error::NotFound { path: path.to_string(), source });
            }
            Fault::Slow(pause) => tokio::time::sleep(pause).await,
            _ => {}
        }
        let result = work.await;
        self.step().await;
        match fault {
            Fault::ErrorAfter => result.and_then(|_| Err(injected("after"))),
            Fault::StoredConflict | Fault::OverwriteAndRefuse => {
                result.and_then(|_| Err(conflict(path)))
            }
            Fault::LostAnswer => std::future::pending().await,
            _ => result,
        }
    }

    async fn step(&self) {
        if self.stepped {
            PendOnce::default().await;
        }
    }

    /// Injects faults into a listing. `inner` takes its listing when it is first polled: after the
    /// step before the call.
    fn listing(
        &self,
        prefix: Option<&Path>,
        inner: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.cloned().unwrap_or_default();
        stream::once(async move {
            let fault = store.fault(Operation::List, &prefix);
            let objects =
                store.inject(fault, &prefix, inner.try_collect::<Vec<ObjectMeta>>()).await?;
            let hidden = match fault {
                Fault::StaleList => store.shared.last_put.lock().clone(),
                _ => None,
            };
            let shown =
                objects.into_iter().filter(move |object| Some(&object.location) != hidden.as_ref());
            Ok::<_, Error>(stream::iter(shown.map(Ok)))
        })
        .try_flatten()
        .boxed()
    }
}

/// Future that returns `Pending` once.
#[derive(Default)]
struct PendOnce {
    taken: bool,
}

impl Future for PendOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.taken {
            return Poll::Ready(());
        }
        self.taken = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn injected(when: &str) -> Error {
    Error::Generic { store: "faulty", source: format!("injected error {when}").into() }
}

fn conflict(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "injected conflict".into() }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let operation = match options.mode {
            PutMode::Create => Operation::PutIfAbsent,
            _ => Operation::Put,
        };
        let fault = self.fault(operation, path);
        if matches!(fault, Fault::Overwrite | Fault::OverwriteAndRefuse) {
            options.mode = PutMode::Overwrite;
        }
        let put = async {
            let put = self.inner.put_opts(path, payload, options).await?;
            *self.shared.last_put.lock() = Some(path.clone());
            Ok(put)
        };
        self.inject(fault, path, put).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.fault(Operation::Upload, path);
        let inner = self.inject(fault, path, self.inner.put_multipart_opts(path, options)).await?;
        Ok(Box::new(FaultyUpload::new(self.clone(), path.clone(), inner)))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = self.fault(operation, path);
        self.inject(fault, path, self.inner.get_opts(path, options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.fault(Operation::Get, path);
        self.inject(fault, path, self.inner.get_ranges(path, ranges)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    let fault = store.fault(Operation::Delete, &path);
                    store.inject(fault, &path, store.inner.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(&self.inner);
        let owned_prefix = prefix.cloned();
        let listed = stream::once(async move { inner.list(owned_prefix.as_ref()) });
        self.listing(prefix, listed.flatten().boxed())
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(&self.inner);
        let owned_prefix = prefix.cloned();
        let after = offset.clone();
        let listed =
            stream::once(async move { inner.list_with_offset(owned_prefix.as_ref(), &after) });
        self.listing(prefix, listed.flatten().boxed())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        let fault = self.fault(Operation::List, &path);
        self.inject(fault, &path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Default for FaultyStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").field("stepped", &self.stepped).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty store")
    }
}
