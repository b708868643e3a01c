//! Changes that the log makes to a region beside writes: alter and truncate. Never wait; what the
//! manifest must record of them is kept as an obligation.

use std::sync::Arc;

use tidewater_common::schema::{TableOptions, TableSchema};

use super::obligation::{Cause, Obligation, Pending};
use super::{Contents, Phase, Region};
use crate::EngineError;
use crate::read::shape::TableShape;

impl Region {
    /// Takes a new schema and new options. Rows that are there already are read through them: a
    /// column that they lack shows its default, one that was dropped is not shown. A schema that is
    /// not newer changes nothing; telling an obligation again is harmless.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when schema and options do not fit each other,
    /// [`EngineError::Closed`] and [`EngineError::Removed`].
    pub fn alter(
        &self,
        cause: Cause,
        schema: TableSchema,
        options: TableOptions,
    ) -> Result<(), EngineError> {
        let shape = Arc::new(TableShape::new(schema.clone(), options.clone())?);
        let mut contents = self.contents.lock();
        self.check_open(&contents)?;
        if shape.schema.version() > contents.shape.schema.version() {
            contents.shape = shape;
        }
        let obligation = Obligation::Alter { schema: Box::new(schema), options };
        self.oblige(&mut contents, Pending { cause, obligation });
        Ok(())
    }

    /// Forgets all rows at or below the sequence of the cause. Reads that have begun go on.
    ///
    /// # Errors
    /// [`EngineError::Closed`] and [`EngineError::Removed`].
    pub fn truncate(&self, cause: Cause) -> Result<(), EngineError> {
        let sequence = cause.sequence;
        let mut contents = self.contents.lock();
        self.check_open(&contents)?;
        contents.version = Arc::new(contents.version.truncated(sequence));
        contents.runs.retain(|run| run.max_sequence() > sequence.get());
        if contents.runs.is_empty() {
            contents.unflushed_since_ms = None;
        }
        self.account(&contents);
        self.oblige(&mut contents, Pending { cause, obligation: Obligation::Truncate });
        Ok(())
    }

    fn check_open(&self, contents: &Contents) -> Result<(), EngineError> {
        match contents.phase {
            Phase::Closed => Err(EngineError::Closed { region: self.id() }),
            Phase::Removed => Err(EngineError::Removed { region: self.id() }),
            _ => Ok(()),
        }
    }

    fn oblige(&self, contents: &mut Contents, pending: Pending) {
        let sequence = pending.cause.sequence;
        contents.last_sequence = contents.last_sequence.max(sequence);
        let last = contents.obligations.last().map(|last| last.cause.sequence);
        let known = last.is_some_and(|last| last >= sequence);
        if !known && sequence > self.manifest.state().done_through {
            contents.obligations.push(pending);
        }
    }
}
