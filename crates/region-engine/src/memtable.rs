//! The memtable: a list of sorted runs.
//!
//! A run is an Arrow batch sorted by row key, not a skip list of rows: writes arrive and leave in
//! columns. A new run is one write. Runs of similar size are merged in the background, so that
//! reads merge few runs. Rows at or below the flushed sequence are never read from a run. When a region
//! is divided, its children hold parts of its runs, which share the rows.

mod compact;
mod duplicates;
mod held;
mod image;
mod levels;
pub(crate) mod run;
mod stored_rows;

pub(crate) use self::compact::{greatest_epoch, merge_into, merge_runs};
pub(crate) use self::held::HeldRun;
pub use self::image::{ImageError, RunImage};
pub(crate) use self::levels::{FAN_IN, pick};
pub use self::run::{RowsWrite, Run};
