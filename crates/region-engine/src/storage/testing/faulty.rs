//! A store in memory in which every call can be made to fail, to lie, or to wait for a test's step.

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

/// What a call does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing else: it works.
    None,
    /// Fails, having done nothing.
    ErrorBefore,
    /// Fails, having done it.
    ErrorAfter,
    /// Works after a pause.
    Slow(Duration),
    /// Does it; the answer never comes.
    LostAnswer,
    /// Says that the name is taken, having stored nothing.
    FalseConflict,
    /// Stores, and says that the name was taken.
    StoredConflict,
    /// A put if absent that overwrites silently.
    Overwrite,
    /// A put if absent that overwrites, and then says that the name was taken.
    OverwriteAndRefuse,
    /// A listing that misses the object written last.
    StaleList,
    /// Says that there is no such object.
    NotFound,
}

/// One call of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub operation: Operation,
    /// On which object, or below which prefix.
    pub path: Path,
    /// The how-manieth call of this operation it is; from 1.
    pub number: u64,
}

type Plan = dyn Fn(&Call) -> Fault + Send + Sync;

/// See the module. Handles share one store.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
    /// Waits once before and once after each call, for a test that polls by hand.
    stepped: bool,
}

struct Shared {
    plan: Mutex<Arc<Plan>>,
    numbers: Mutex<HashMap<Operation, u64>>,
    last_put: Mutex<Option<Path>>,
    open_uploads: AtomicUsize,
}

impl FaultyStore {
    /// A store in memory that works.
    pub fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// Faults before another store.
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        let shared = Shared {
            plan: Mutex::new(Arc::new(|_| Fault::None)),
            numbers: Mutex::default(),
            last_put: Mutex::default(),
            open_uploads: AtomicUsize::new(0),
        };
        Self { inner, shared: Arc::new(shared), stepped: false }
    }

    /// From here on `plan` decides what each call does; calls are counted anew.
    pub fn plan(&self, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.shared.plan.lock() = Arc::new(plan);
        self.shared.numbers.lock().clear();
    }

    /// Uploads in parts that were begun, and neither completed nor aborted: a store keeps what they
    /// have written.
    pub fn open_uploads(&self) -> usize {
        self.shared.open_uploads.load(Ordering::Relaxed)
    }

    /// A handle whose calls return `Pending` once before and once after they do their work.
    #[must_use]
    pub fn stepped(&self) -> Self {
        Self { stepped: true, ..self.clone() }
    }

    /// Wraps this handle, with limits that suit tests.
    pub fn storage(&self) -> Storage {
        let options = StorageOptions {
            deadline: Duration::from_millis(200),
            attempts: 3,
            backoff: Duration::ZERO,
            backoff_limit: Duration::ZERO,
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

    async fn around<T>(
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
            Step::default().await;
        }
    }

    /// `inner` takes its listing when it is first polled: after the step before the call.
    fn listing(
        &self,
        prefix: Option<&Path>,
        inner: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        stream::once(async move {
            let fault = store.fault(Operation::List, &prefix);
            let objects =
                store.around(fault, &prefix, inner.try_collect::<Vec<ObjectMeta>>()).await?;
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

/// `Pending` once.
#[derive(Default)]
struct Step {
    taken: bool,
}

impl Future for Step {
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
        self.around(fault, path, put).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.fault(Operation::Upload, path);
        let inner = self.around(fault, path, self.inner.put_multipart_opts(path, options)).await?;
        Ok(Box::new(FaultyUpload::new(self.clone(), path.clone(), inner)))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = self.fault(operation, path);
        self.around(fault, path, self.inner.get_opts(path, options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.fault(Operation::Get, path);
        self.around(fault, path, self.inner.get_ranges(path, ranges)).await
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
                    store.around(fault, &path, store.inner.delete(&path)).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, within) = (Arc::clone(&self.inner), prefix.cloned());
        let late = stream::once(async move { inner.list(within.as_ref()) });
        self.listing(prefix, late.flatten().boxed())
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, within, after) = (Arc::clone(&self.inner), prefix.cloned(), offset.clone());
        let late = stream::once(async move { inner.list_with_offset(within.as_ref(), &after) });
        self.listing(prefix, late.flatten().boxed())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        let fault = self.fault(Operation::List, &path);
        self.around(fault, &path, self.inner.list_with_delimiter(prefix)).await
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
