//! What the log has decided and the manifest has still to record.
//!
//! The log decides, the manifest records: an alter or a truncation takes effect at its log index on
//! every replica. Writing it to the manifest is the owner's obligation, kept until the manifest
//! shows it done, and idempotent by sequence, so that a new owner finishes what the old one began.

use tidewater_common::ids::{ManifestVersion, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};

use super::Region;
use super::publication::Publication;
use crate::EngineError;
use crate::manifest::{AreaId, ProcedureStep, Void};

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
    /// A staging area begins.
    OpenArea {
        /// The area.
        area: AreaId,
        /// When it is to be given up, milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// What is staged in an area becomes live.
    Publish(Publication),
    /// What is staged in an area is dropped.
    Abandon {
        /// The area.
        area: AreaId,
    },
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

impl Region {
    /// Every obligation at or below this is recorded in the manifest, as far as it has been read.
    pub fn done_through(&self) -> Sequence {
        self.manifest.state().done_through
    }

    /// The obligations that the manifest does not show, in order.
    pub fn obligations(&self) -> Vec<Pending> {
        self.contents.lock().obligations.clone()
    }

    /// Whether the log has published files that the manifest, as far as it has been read here, does
    /// not show: a replica that does not own the region may lack rows that were acknowledged.
    pub fn lacks_published(&self) -> bool {
        let contents = self.contents.lock();
        contents
            .obligations
            .iter()
            .any(|pending| matches!(pending.obligation, Obligation::Publish(_)))
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
            if pending.obligation.flushes_first() {
                self.flush_below(pending.cause.sequence).await?;
            }
            let change = pending.change(own, &self.manifest.state());
            let (last, nothing) = (change.cause.is_some(), change.actions.is_empty());
            let recorded = match self.manifest.update_manifest(change).await {
                // By an earlier owner, or by a put of ours whose answer was lost.
                Err(EngineError::Refused { reason: Void::AlreadyDone { .. }, .. }) => {
                    self.manifest.refresh().await
                }
                // The same of an area: the state, which has been read, says what is left to do.
                Err(EngineError::Refused {
                    reason: Void::AreaNotOpen { .. } | Void::AreaUsed { .. },
                    ..
                }) => continue,
                other => other,
            };
            self.note_fence(recorded)?;
            self.swap();
            if !last {
                continue;
            }
            if nothing {
                // Such as the second publication of an area, by whoever had not heard of the first.
                tracing::warn!(
                    region = %self.id(),
                    sequence = %pending.cause.sequence,
                    change = pending.obligation.name(),
                    "the staging area is not there any more: nothing was changed"
                );
            }
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
    /// Whether rows below it must lie in files before it is recorded, and those above it after:
    /// what merges files relies on memory holding nothing that is older than they.
    pub(super) fn flushes_first(&self) -> bool {
        matches!(self, Self::Publish(_))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Alter { .. } => "alter",
            Self::Truncate => "truncate",
            Self::OpenArea { .. } => "open staging area",
            Self::Publish(_) => "publish",
            Self::Abandon { .. } => "abandon staging area",
        }
    }
}
