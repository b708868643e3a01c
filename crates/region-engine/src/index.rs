//! Indexes: objects that record which row keys a data file cannot hold.
//!
//! - **Kind**: builds an index from a file's row keys and reads it back. Kinds are compiled in.
//! - **Index**: belongs to one file and has its own id. It is built in the background from a live
//!   file, written, and then added to the manifest by a job's edit. That edit is void when the file
//!   is no longer live or the schema has changed; the object is garbage then. An index is deleted
//!   with its file.
//!
//! No result ever depends on an index. If it is missing, damaged or of a kind that this release
//! does not know, it is skipped, logged and counted, and the file is read instead.

pub(crate) mod bloom;
pub(crate) mod cache;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

pub use self::bloom::Bloom;
pub use self::cache::IndexCache;
use crate::file_meta::FileMeta;

/// A kind of index.
pub trait IndexKind: Debug + Send + Sync {
    /// Name in manifests, and extension of the objects; never changes.
    fn name(&self) -> &'static str;

    /// Starts to build an index of a file.
    fn build(&self, file: &FileMeta) -> Box<dyn IndexBuilder>;

    /// Reads an index of a file.
    ///
    /// # Errors
    /// A description of the problem with the bytes.
    fn open(&self, file: &FileMeta, bytes: &Bytes) -> Result<Arc<dyn PointIndex>, String>;
}

/// Builder of an index.
pub trait IndexBuilder: Send {
    /// Adds a row key of the file. The caller passes all keys, in order; a key may be passed
    /// several times.
    fn add(&mut self, row_key: &[u8]);

    /// Returns the bytes of the object.
    fn finish(self: Box<Self>) -> Bytes;
}

/// An index in memory.
pub trait PointIndex: Debug + Send + Sync {
    /// Returns whether the file may hold the key; `false` is certain.
    fn may_hold(&self, row_key: &[u8]) -> bool;

    /// Bytes in memory.
    fn weight(&self) -> usize;
}

/// Returns the kind of this name; `None` when this release does not know it.
pub fn kind(name: &str) -> Option<&'static dyn IndexKind> {
    const KINDS: [&dyn IndexKind; 1] = [&Bloom];
    KINDS.into_iter().find(|kind| kind.name() == name)
}
