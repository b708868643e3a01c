//! The memtable: a list of sorted runs.
//!
//! A run is an Arrow batch sorted by row key, not a skip list of rows: writes arrive columnar and
//! leave columnar. A fresh run is one write. Runs of similar size are merged in the background so
//! that reads merge few; what lies at or below the flushed sequence is never read from a run.

mod compact;
mod duplicates;
mod image;
mod levels;
pub(crate) mod run;

pub(crate) use self::compact::{merge_into, merge_runs};
pub use self::image::{ImageError, RunImage};
pub(crate) use self::levels::{FAN_IN, pick};
pub use self::run::{RowsWrite, Run};
