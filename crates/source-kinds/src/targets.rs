//! Targets of exports: local directories and prefixes of buckets, below which data nodes write objects.
//!
//! A caller configures a target, and a node writes its objects with the rights of the node. The operator of a node
//! therefore grants a directory (`--export-dir`), without which no export writes a file of the node. Credentials and hosts
//! are those that the operator permits to sources.
//!
//! Configuration: that of a `parquet` source (`objects`) for `file:///absolute/directory` and `s3://`. Other remote
//! stores are read without credentials, and cannot be written.
//!
//! # Terms
//!
//! - **Target**: an opened configuration. Its names are relative to its directory or prefix.
//! - **Object**: a file or an object of a remote store. It is visible once it is complete, and durable when the call that
//!   writes it returns, also after a power cut: a local object is synced before it gets its name, with its directories.
//! - **Writer**: a write of a large object in parts. It lives until it is shut down or aborted. The object becomes visible
//!   when the writer is shut down.
//!
//! # Layout
//!
//! - `target`: reads, writes, lists and deletes objects. `writer_store`: the store of writers, which checks and limits
//!   their requests. `directory`: local directories, and symbolic links in them. `error`: errors of targets.
//!   `testing`: targets of tests.

mod directory;
mod error;
mod target;
#[doc(hidden)]
pub mod testing;
mod writer_store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tidewater_common::granted_dirs::{DirectoryError, DirectoryGrants};
use tidewater_region_engine::storage::{DurableLocal, StorageError};

pub use self::error::TargetError;
pub use self::target::Target;
use crate::SourceAccess;
use crate::objects::{Place, open_store};

/// Writer of a large object of a [`Target`]. Its memory is limited: 8 MiB, and 8 MiB for each of at most four parts that
/// are sent.
///
/// An error is a [`TargetError`] in its causes, which [`TargetError::find_in`] returns. After an error of a write, `abort`
/// removes the parts that were sent. A writer that is dropped before it was shut down does so in the background. `abort`
/// panics after a shutdown, also after one that has failed, which leaves no parts.
pub type ObjectWriter = object_store::buffered::BufWriter;

/// Permissions of exports on a node, and the way to open their targets. The default permits no files, and all hosts except
/// for those with special addresses.
#[derive(Debug, Clone, Default)]
pub struct ExportTargets {
    /// Files of credentials that targets use, and hosts that they call.
    access: SourceAccess,
    /// Directory, without symbolic links, below which exports write files.
    export_dir: Option<PathBuf>,
}

impl ExportTargets {
    /// Checks the directory: it exists, and does not overlap with the other directories of `grants`, to which it is added.
    /// `access`: permissions of the node's sources.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn new(
        access: SourceAccess,
        export_dir: Option<&Path>,
        grants: &mut DirectoryGrants,
    ) -> Result<Self, DirectoryError> {
        let export_dir = grants.grant("--export-dir", export_dir)?;
        Ok(Self { access, export_dir })
    }

    /// Checks a configuration, without I/O: permissions are not checked.
    ///
    /// # Errors
    /// The problem, for the user.
    pub fn check(config: &Value) -> Result<(), String> {
        Place::of_target(config).map(drop)
    }

    /// Opens a target. Creates a local directory, and sends nothing to a remote store. It is not cheap: a local directory
    /// is synced, and a remote store gets a client with connections of its own.
    ///
    /// # Errors
    /// [`TargetError::BadConfig`], [`TargetError::NotPermitted`] if the operator does not grant the directory or the
    /// credentials, [`TargetError::Unavailable`] if the directory or the credentials cannot be used.
    pub async fn open(&self, config: &Value) -> Result<Target, TargetError> {
        match Place::of_target(config).map_err(TargetError::BadConfig)? {
            Place::Local(directory) => self.open_local(directory).await,
            Place::Remote(location) => {
                let url = location.url.clone();
                let access = self.access.clone();
                let store =
                    blocking(move || open_store(&location, &access).map_err(TargetError::from))
                        .await?;
                Ok(Target::new(&url, store, None))
            }
        }
    }

    async fn open_local(&self, path: PathBuf) -> Result<Target, TargetError> {
        let Some(granted) = self.export_dir.clone() else {
            return Err(TargetError::NotPermitted(
                "this node permits no export to write files: start it with --export-dir DIR, and \
                 export to a directory below DIR"
                    .to_owned(),
            ));
        };
        let resolve = |path: PathBuf| {
            let granted = granted.clone();
            blocking(move || directory::resolve(&granted, &path))
        };
        // Without a slash at its end.
        let named: PathBuf = path.components().collect();
        let root = resolve(path).await?;
        let store = DurableLocal::open(root.clone()).await.map_err(unusable)?;
        // A symbolic link may have replaced a part of the path since.
        let root = resolve(root).await?;
        Ok(Target::new(&format!("file://{}", named.display()), Arc::new(store), Some(root)))
    }
}

fn unusable(error: StorageError) -> TargetError {
    TargetError::Unavailable(match error {
        StorageError::Directory { path, detail } => {
            format!("directory {path}: {detail}: name one that the user of the data node may write")
        }
        error => error.to_string(),
    })
}

/// Runs blocking work outside of the asynchronous runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TargetError> + Send + 'static,
) -> Result<T, TargetError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(TargetError::Unavailable(format!("the call was aborted: {error}"))),
    }
}

#[cfg(test)]
mod tests;
