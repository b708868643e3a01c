//! Changes that the log makes to a region beside writes: alter, truncate, and what becomes of staging
//! areas. Never wait; what the manifest must record of them is kept as an obligation.

use std::sync::Arc;

use tidewater_common::schema::{TableOptions, TableSchema};

use super::obligation::{Cause, Obligation, Pending};
use super::publication::{Content, Publication};
use super::{Contents, Phase, Region};
use crate::EngineError;
use crate::manifest::AreaId;
use crate::read::shape::TableShape;

impl Region {
    /// Takes up what the log has decided, whatever it is: the same as calling its own function.
    ///
    /// # Errors
    /// Those of that function.
    pub fn decide(&self, pending: Pending) -> Result<(), EngineError> {
        let cause = pending.cause;
        match pending.obligation {
            Obligation::Alter { schema, options } => self.alter(cause, *schema, options),
            Obligation::Truncate => self.truncate(cause),
            Obligation::OpenArea { area, deadline_ms } => self.open_area(cause, area, deadline_ms),
            Obligation::Publish(publication) => self.publish(cause, publication),
            Obligation::Abandon { area } => self.abandon(cause, area),
        }
    }

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

    /// Begins a staging area, which outlives its owner: from the time that it is settled, files and
    /// schemas can be staged in it.
    ///
    /// # Errors
    /// [`EngineError::Closed`] and [`EngineError::Removed`].
    pub fn open_area(
        &self,
        cause: Cause,
        area: AreaId,
        deadline_ms: u64,
    ) -> Result<(), EngineError> {
        self.owe(cause, Obligation::OpenArea { area, deadline_ms })
    }

    /// Makes live what is staged in an area, in one step; a schema of it holds from here on. Reads
    /// show the files as soon as it is settled. The log has compared what the area was checked
    /// against (see [`Staged`](super::Staged)) with what the region is now.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when schema and options do not fit each other,
    /// [`EngineError::Closed`] and [`EngineError::Removed`].
    pub fn publish(&self, cause: Cause, publication: Publication) -> Result<(), EngineError> {
        let shape = match &publication.content {
            Content::Area { table: Some(table) } => {
                Some(TableShape::new(table.0.clone(), table.1.clone())?)
            }
            _ => None,
        };
        self.owe(cause, Obligation::Publish(publication))?;
        let mut contents = self.contents.lock();
        if let Some(shape) = shape
            && shape.schema.version() > contents.shape.schema.version()
        {
            contents.shape = Arc::new(shape);
        }
        Ok(())
    }

    /// Drops what is staged in an area; the files become garbage.
    ///
    /// # Errors
    /// [`EngineError::Closed`] and [`EngineError::Removed`].
    pub fn abandon(&self, cause: Cause, area: AreaId) -> Result<(), EngineError> {
        self.owe(cause, Obligation::Abandon { area })
    }

    fn owe(&self, cause: Cause, obligation: Obligation) -> Result<(), EngineError> {
        let mut contents = self.contents.lock();
        self.check_open(&contents)?;
        self.oblige(&mut contents, Pending { cause, obligation });
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
