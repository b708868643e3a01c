//! Indexes: objects beside a data file that say which row keys it cannot hold.
//!
//! A *kind* of index knows how to make one from a file's row keys and how to ask it. An index has an id
//! of its own and belongs to one file. It is built in the background from a live file, written, and
//! then named in the manifest by a job's edit, which is void when the file is live no more or the
//! schema has changed; the object is garbage then. It goes when its file goes.
//!
//! No answer ever depends on an index: one that is missing, damaged or of a kind that this release does
//! not know is passed over, with a line in the log and a count, and the file is read instead.

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
    /// Its name in manifests, and the extension of its objects; never changes.
    fn name(&self) -> &'static str;

    /// Begins an index of a file.
    fn build(&self, file: &FileMeta) -> Box<dyn IndexBuilder>;

    /// Reads an index of a file.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn open(&self, file: &FileMeta, bytes: &Bytes) -> Result<Arc<dyn PointIndex>, String>;
}

/// An index in the making.
pub trait IndexBuilder: Send {
    /// Takes a row key of the file in. All are given, in order; a key may be given several times.
    fn add(&mut self, row_key: &[u8]);

    /// The bytes of the object.
    fn finish(self: Box<Self>) -> Bytes;
}

/// An index that was read.
pub trait PointIndex: Debug + Send + Sync {
    /// Whether the file may hold the key; `false` is certain.
    fn may_hold(&self, row_key: &[u8]) -> bool;

    /// Bytes that it takes in memory.
    fn weight(&self) -> usize;
}

/// The kind of this name; `None` when this release does not know it.
pub fn kind(name: &str) -> Option<&'static dyn IndexKind> {
    const KINDS: [&dyn IndexKind; 1] = [&Bloom];
    KINDS.into_iter().find(|kind| kind.name() == name)
}
