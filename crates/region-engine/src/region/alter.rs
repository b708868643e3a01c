//! Log entries other than writes: alter, truncate, and the steps of staging areas. They are applied
//! without waiting; the change that the manifest must record is kept as an obligation.

use std::sync::Arc;

use tidewater_common::schema::{TableOptions, TableSchema};

use super::obligation::{Cause, Obligation, PendingObligation, Publication, PublicationContent};
use super::{Contents, Region};
use crate::EngineError;
use crate::manifest::AreaId;
use crate::read::shape::TableShape;

impl Region {
    /// Applies an obligation of any kind; equivalent to the function for its kind.
    ///
    /// # Errors
    /// Those of that function.
    pub fn apply_obligation(&self, pending: PendingObligation) -> Result<(), EngineError> {
        let cause = pending.cause;
        match pending.obligation {
            Obligation::Alter { schema, options } => self.alter(cause, *schema, options),
            Obligation::Truncate => self.truncate(cause),
            Obligation::OpenArea { area, deadline_ms } => self.open_area(cause, area, deadline_ms),
            Obligation::Publish(publication) => self.publish(cause, publication),
            Obligation::Abandon { area } => self.abandon(cause, area),
        }
    }

    /// Applies a new schema and new options. Existing rows are read through them: a column that the rows
    /// lack shows its default, a dropped column is hidden. A schema that is not newer changes nothing.
    /// Idempotent by sequence.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] if schema and options do not match,
    /// [`EngineError::Closed`], [`EngineError::Removed`] and [`EngineError::Divided`].
    pub fn alter(
        &self,
        cause: Cause,
        schema: TableSchema,
        options: TableOptions,
    ) -> Result<(), EngineError> {
        let shape = Arc::new(TableShape::new(schema.clone(), options.clone())?);
        let mut contents = self.contents.lock();
        contents.check_open(self.id())?;
        if shape.schema.version() > contents.shape.schema.version() {
            contents.shape = shape;
        }
        let obligation = Obligation::Alter { schema: Box::new(schema), options };
        self.push_obligation(&mut contents, PendingObligation { cause, obligation });
        Ok(())
    }

    /// Removes all rows at or below the sequence of the cause. Reads in progress continue.
    ///
    /// # Errors
    /// [`EngineError::Closed`], [`EngineError::Removed`] and [`EngineError::Divided`].
    pub fn truncate(&self, cause: Cause) -> Result<(), EngineError> {
        let sequence = cause.sequence;
        let mut contents = self.contents.lock();
        contents.check_open(self.id())?;
        contents.version = Arc::new(contents.version.truncated(sequence));
        contents.runs.retain(|run| run.max_sequence() > sequence.get());
        if contents.runs.is_empty() {
            contents.unflushed_since_ms = None;
        }
        let obligation = Obligation::Truncate;
        self.push_obligation(&mut contents, PendingObligation { cause, obligation });
        Ok(())
    }

    /// Opens a staging area that outlives the owner. Files and schemas can be staged in it as soon as the
    /// obligation is recorded.
    ///
    /// # Errors
    /// [`EngineError::Closed`], [`EngineError::Removed`] and [`EngineError::Divided`].
    pub fn open_area(
        &self,
        cause: Cause,
        area: AreaId,
        deadline_ms: u64,
    ) -> Result<(), EngineError> {
        self.add_obligation(cause, Obligation::OpenArea { area, deadline_ms })
    }

    /// Makes the content of a staging area live, atomically. A staged schema applies immediately; reads
    /// show the files as soon as the obligation is recorded. The log has already compared the schema and
    /// range against which the area was checked (see [`StagedFiles`](super::StagedFiles)) with those of
    /// the region.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] if schema and options do not match,
    /// [`EngineError::Closed`], [`EngineError::Removed`] and [`EngineError::Divided`].
    pub fn publish(&self, cause: Cause, publication: Publication) -> Result<(), EngineError> {
        let shape = match &publication.content {
            PublicationContent::Area { table: Some(table) } => {
                Some(TableShape::new(table.0.clone(), table.1.clone())?)
            }
            _ => None,
        };
        self.add_obligation(cause, Obligation::Publish(publication))?;
        let mut contents = self.contents.lock();
        if let Some(shape) = shape
            && shape.schema.version() > contents.shape.schema.version()
        {
            contents.shape = Arc::new(shape);
        }
        Ok(())
    }

    /// Drops the content of a staging area; its files become garbage.
    ///
    /// # Errors
    /// [`EngineError::Closed`], [`EngineError::Removed`] and [`EngineError::Divided`].
    pub fn abandon(&self, cause: Cause, area: AreaId) -> Result<(), EngineError> {
        self.add_obligation(cause, Obligation::Abandon { area })
    }

    fn add_obligation(&self, cause: Cause, obligation: Obligation) -> Result<(), EngineError> {
        let mut contents = self.contents.lock();
        contents.check_open(self.id())?;
        self.push_obligation(&mut contents, PendingObligation { cause, obligation });
        Ok(())
    }

    fn push_obligation(&self, contents: &mut Contents, pending: PendingObligation) {
        let sequence = pending.cause.sequence;
        contents.last_sequence = contents.last_sequence.max(sequence);
        let last = contents.obligations.last().map(|last| last.cause.sequence);
        let known = last.is_some_and(|last| last >= sequence);
        if !known && sequence > self.manifest.state().done_through {
            contents.obligations.push(pending);
        }
    }
}
