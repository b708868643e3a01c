//! Runs that a region holds in its memtable, and their memory.
//!
//! The budget is charged for the rows of a run once, as a whole, for as long as any region holds a part
//! of them. The parts of a divided run share its rows, so the memory is free only when the last part is
//! flushed or dropped. Charged in parts, the account would show memory as free that is not, up to the
//! size of all memtables, and would admit writes for it. Sizes of regions, which decide when and in which
//! order they are flushed, are those of the parts.

use std::ops::Deref;
use std::sync::Arc;

use tidewater_common::keys::KeyRange;

use super::run::Run;
use crate::EngineError;
use crate::memory::{MemoryBudget, RowsCharge};
use crate::read::shape::TableShape;

/// Run in a region's memtable. Reads and flushes in progress keep the run, but not its charge.
#[derive(Debug, Clone)]
pub(crate) struct HeldRun {
    run: Arc<Run>,
    /// Memory of all rows that the run shares with others.
    charge: Arc<RowsCharge>,
}

impl HeldRun {
    /// Charges a run whose rows are in no memtable yet.
    pub(crate) fn new(run: Arc<Run>, memory: &Arc<MemoryBudget>) -> Self {
        let charge = Arc::new(memory.charge(run.bytes() as u64));
        Self { run, charge }
    }

    /// Returns the run.
    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Returns the part of the run with keys in `range`, which shares rows and charge; `None` without any.
    pub(crate) fn within(
        &self,
        range: &KeyRange,
        shape: &TableShape,
    ) -> Result<Option<Self>, EngineError> {
        let part = self.run.within(range, &shape.schema, &shape.codec)?;
        Ok(part.map(|run| Self { run, charge: self.charge.clone() }))
    }
}

impl Deref for HeldRun {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}
