//! Bulk files: files that are written outside of a flush or compaction, and adopted by a region.
//!
//! - **Bulk writer**: writes files into a region's own directory; no manifest refers to them yet.
//! - **Inspection**: reads a whole file before it is adopted, checks it against the region's
//!   columns, keys and range, and describes it. A file that fails is rejected with a reason, and
//!   becomes garbage.
//!
//! # Layout
//!
//! - [`writer`]: the bulk writer. `inspect`: reads a file and describes it. `columns`, `order`:
//!   checks of its columns and rows (pure). [`error`]: reasons for a rejection.

mod columns;
pub mod error;
mod inspect;
mod order;
pub mod writer;

pub use self::error::{AdoptError, Unfit};
pub(crate) use self::inspect::inspect;
pub use self::writer::BulkWriter;

/// Maximum number of files that one call adopts and one staging area publishes: each file gets its
/// own sequence.
pub const MAX_FILES: usize = tidewater_common::agreed_limits::AREA_FILES;
