//! What the log has decided and the manifest has still to record.
//!
//! The log decides, the manifest records: an alter or a truncation takes effect at its log index on
//! every replica. Writing it to the manifest is the owner's obligation, kept until the manifest
//! shows it done, and idempotent by sequence, so that a new owner finishes what the old one began.

use tidewater_common::ids::{ManifestVersion, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};

use super::Region;
use crate::EngineError;
use crate::manifest::{ActionKind, Author, Change, ProcedureStep, Truncate, Void};

/// What is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obligation {
    /// Schema and options from here on.
    Alter {
        /// The schema.
        schema: Box<TableSchema>,
        /// The options.
        options: TableOptions,
    },
    /// All rows up to the sequence of the cause are forgotten.
    Truncate,
}

/// The log entry that decided something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Its sequence: greater than that of every write before it.
    pub sequence: Sequence,
    /// The step of a procedure that it carries out.
    pub procedure: Option<ProcedureStep>,
}

/// An obligation that the manifest does not show yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What decided it.
    pub cause: Cause,
    /// What is to be recorded.
    pub obligation: Obligation,
}

impl Pending {
    fn action(&self) -> ActionKind {
        match &self.obligation {
            Obligation::Alter { schema, options } => {
                ActionKind::Alter { schema: schema.clone(), options: options.clone() }
            }
            Obligation::Truncate => ActionKind::Truncate(Truncate::UpTo(self.cause.sequence)),
        }
    }
}

impl Region {
    /// Every obligation at or below this is recorded in the manifest, as far as it has been read.
    pub fn done_through(&self) -> Sequence {
        self.manifest.state().done_through
    }

    /// The obligations that the manifest does not show, in order.
    pub fn obligations(&self) -> Vec<Pending> {
        self.contents.lock().obligations.clone()
    }

    /// Records all obligations that there are when it is called, in order; what has been recorded by
    /// anybody is not recorded again. Only the owner may. Returns the manifest's version after it.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], and those of a commit; the obligations
    /// that are left stay, and it may be asked again.
    pub async fn settle(&self) -> Result<ManifestVersion, EngineError> {
        let _flushing = self.flushing.lock().await;
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.swap();
        self.settle_obligations().await
    }

    /// See [`Region::settle`]; under the lock of the flushes, since owners' commits are in order.
    pub(super) async fn settle_obligations(&self) -> Result<ManifestVersion, EngineError> {
        loop {
            let (own, pending) = {
                let contents = self.contents.lock();
                let own = contents.phase.check_owner(self.id())?;
                match contents.obligations.first() {
                    Some(pending) => (own, pending.clone()),
                    None => return Ok(contents.version.manifest),
                }
            };
            let mut change = Change::new(Author::Owner(own), vec![pending.action()]);
            change.cause = Some(pending.cause.sequence);
            change.procedure = pending.cause.procedure;
            let recorded = match self.manifest.update_manifest(change).await {
                // By an earlier owner, or by a put of ours whose answer was lost.
                Err(EngineError::Refused { reason: Void::AlreadyDone { .. }, .. }) => {
                    self.manifest.refresh().await
                }
                other => other,
            };
            self.note_fence(recorded)?;
            self.swap();
            if self.obligations().first() == Some(&pending) {
                return Err(EngineError::Internal {
                    detail: format!(
                        "region {}: the manifest does not show what sequence {} did",
                        self.id(),
                        pending.cause.sequence
                    ),
                });
            }
            tracing::info!(
                region = %self.id(),
                sequence = %pending.cause.sequence,
                change = pending.obligation.name(),
                "recorded in the manifest"
            );
        }
    }
}

impl Obligation {
    fn name(&self) -> &'static str {
        match self {
            Self::Alter { .. } => "alter",
            Self::Truncate => "truncate",
        }
    }
}
