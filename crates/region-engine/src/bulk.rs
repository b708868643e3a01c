//! Files that somebody else wrote: from sorted rows to files, and from files to what the manifest
//! says of them.
//!
//! A *bulk writer* puts files into a region's own directory; no manifest names them yet. Before one
//! does, a file is *inspected*: all of it is read, checked against the region's columns, keys and
//! range, and described. What does not fit is refused with a reason, and becomes garbage.
//!
//! - [`writer`]: the bulk writer. `inspect`: reads a file and describes it. `columns`, `order`: what
//!   it must look like (pure). [`error`]: what is refused.

mod columns;
pub mod error;
mod inspect;
mod order;
pub mod writer;

pub use self::error::{AdoptError, Unfit};
pub(crate) use self::inspect::inspect;
pub use self::writer::BulkWriter;

/// Files that one call takes over at most, and one area publishes: each gets a sequence of its own.
pub const MOST_FILES: usize = 4_096;
