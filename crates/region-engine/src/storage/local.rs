//! A directory as an object store in which visible objects are durable.
//!
//! The library's local store syncs nothing: after a power cut, an object that was listed, and that
//! a manifest refers to, may be missing or empty. This store writes an object under a staged name
//! (`<name>#<number>`, which listings hide), syncs it, and gives it its name by a hard link (put if
//! absent) or a rename. Then it syncs the directory and every parent that had to be created.

mod write;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use self::write::{DurableDirs, LocalUpload, Naming};
use super::StorageError;

const STORE: &str = "durable local store";

/// Object store in a directory. A visible object is complete, and a returned write is durable, also after a power cut.
#[derive(Debug)]
pub struct DurableLocal {
    inner: LocalFileSystem,
    root: PathBuf,
    dirs: Arc<DurableDirs>,
}

impl DurableLocal {
    /// Creates the directory and its parents unless they exist.
    ///
    /// # Errors
    /// [`StorageError::Directory`] if the directory cannot be created or written.
    pub async fn open(root: PathBuf) -> std::result::Result<Self, StorageError> {
        let path = root.display().to_string();
        let unusable = |detail: String| StorageError::Directory { path: path.clone(), detail };
        let opened = blocking(move || {
            if root.exists() && !root.is_dir() {
                return Err(std::io::Error::other("it is not a directory"));
            }
            let dirs = DurableDirs::default();
            dirs.create(&root)?;
            let root = root.canonicalize()?;
            let staged = write::staged_name(&root.join("writable"));
            std::fs::File::create_new(&staged)?;
            std::fs::remove_file(&staged)?;
            Ok((root, dirs))
        })
        .await;
        let (root, dirs) = opened.map_err(|error| unusable(error.to_string()))?;
        let inner =
            LocalFileSystem::new_with_prefix(&root).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { inner, root, dirs: Arc::new(dirs) })
    }

    fn file(&self, location: &Path) -> Result<PathBuf> {
        self.inner.path_to_filesystem(location)
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE} {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let naming = match options.mode {
            PutMode::Create => Naming::IfAbsent,
            PutMode::Overwrite => Naming::Replace,
            PutMode::Update(_) => return Err(not_implemented("conditional update")),
        };
        let file = self.file(location)?;
        let name = location.to_string();
        let dirs = Arc::clone(&self.dirs);
        blocking(move || write::put(&dirs, &file, &payload, naming))
            .await
            .map_err(|error| store_error(&name, error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let file = self.file(location)?;
        let name = location.to_string();
        let dirs = Arc::clone(&self.dirs);
        let started = blocking(move || LocalUpload::start(&dirs, &file)).await;
        Ok(Box::new(started.map_err(|error| store_error(&name, error))?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(not_implemented("copy"))
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

fn store_error(name: &str, error: std::io::Error) -> Error {
    let path = name.to_owned();
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        std::io::ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        std::io::ErrorKind::PermissionDenied => {
            Error::PermissionDenied { path, source: error.into() }
        }
        _ => Error::Generic { store: STORE, source: error.into() },
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests;
