//! Obligations: effects of the log that the owner has yet to record in the manifest.
//!
//! The log decides, the manifest records: an alter or a truncation takes effect at its log index on
//! every replica. Writing it to the manifest is an obligation of the owner. Every replica keeps the
//! obligation until the manifest shows it as done. Recording is idempotent by sequence, so that a
//! new owner completes what its predecessor began.

use tidewater_common::ids::{Epoch, ManifestVersion, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema};

use super::Region;
use crate::EngineError;
use crate::manifest::{AreaId, ProcedureStep, Void};

/// Change that has to be recorded in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obligation {
    /// New schema and options.
    Alter {
        /// Schema from this sequence on.
        schema: Box<TableSchema>,
        /// Options from this sequence on.
        options: TableOptions,
    },
    /// All rows up to the sequence of the cause are removed.
    Truncate,
    /// A staging area is opened.
    OpenArea {
        /// Id of the staging area.
        area: AreaId,
        /// Time after which it may be abandoned, milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// The content of a staging area becomes live.
    Publish(Publication),
    /// The content of a staging area is dropped.
    Abandon {
        /// Id of the staging area.
        area: AreaId,
    },
}

/// Publication of a staging area: its content becomes live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Id of the staging area.
    pub area: AreaId,
    /// Epoch of the published rows; copies keep their own.
    pub epoch: Epoch,
    /// Kind of the area's content.
    pub content: PublicationContent,
}

/// Kind of content of a staging area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicationContent {
    /// Files of a bulk load. The rows of the first file get the sequence of the cause, those of the
    /// second file the next sequence, and so on. The log reserves one sequence for each file.
    Files,
    /// Files of another region, which keep their own sequences.
    Copies,
    /// A staging area: bulk-load files, and optionally a new schema and options.
    Area {
        /// New schema and options.
        table: Option<Box<(TableSchema, TableOptions)>>,
    },
}

/// Log entry that caused an obligation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Sequence of the entry: greater than that of every earlier write.
    pub sequence: Sequence,
    /// Step of the procedure that the entry belongs to.
    pub procedure: Option<ProcedureStep>,
}

/// An obligation that is not recorded in the manifest yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingObligation {
    /// Log entry that caused it.
    pub cause: Cause,
    /// Change to record.
    pub obligation: Obligation,
}

impl Region {
    /// Sequence at or below which every obligation is recorded in the manifest, as of its last read.
    pub fn done_through(&self) -> Sequence {
        self.manifest.state().done_through
    }

    /// Obligations that are not recorded in the manifest yet, in log order.
    pub fn obligations(&self) -> Vec<PendingObligation> {
        self.contents.lock().obligations.clone()
    }

    /// Drops the obligations at or below a sequence: the log shows that the manifest records them, in a version that
    /// this replica may not have read yet.
    pub fn drop_recorded_obligations(&self, through: Sequence) {
        self.contents.lock().obligations.retain(|pending| pending.cause.sequence > through);
    }

    /// Returns true if the log has published files that the manifest, as last read by this replica,
    /// does not contain: a replica that is not the owner may then lack acknowledged rows.
    pub fn has_unrecorded_publication(&self) -> bool {
        let contents = self.contents.lock();
        contents
            .obligations
            .iter()
            .any(|pending| matches!(pending.obligation, Obligation::Publish(_)))
    }

    /// Records all pending obligations in the manifest, in order, and returns the resulting manifest
    /// version. Requires ownership. An obligation that any owner has recorded is not recorded again.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], and errors of a commit. The remaining
    /// obligations stay pending, and the call can be retried.
    pub async fn record_obligations(&self) -> Result<ManifestVersion, EngineError> {
        let _flushing = self.flushing.lock().await;
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.install_version();
        self.record_pending_obligations().await
    }

    /// Does the work of [`Region::record_obligations`]. The caller holds the flush lock, since commits
    /// of an owner are serialized.
    pub(super) async fn record_pending_obligations(&self) -> Result<ManifestVersion, EngineError> {
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
            let change = pending.next_change(own, &self.manifest.state());
            let is_last = change.cause.is_some();
            let is_empty = change.actions.is_empty();
            let recorded = match self.manifest.update_manifest(change).await {
                // Recorded by an earlier owner, or by a put of this one whose response was lost.
                Err(EngineError::Refused { reason: Void::AlreadyDone { .. }, .. }) => {
                    self.manifest.refresh().await
                }
                // The same for a staging area: the refreshed state determines the remaining change.
                Err(EngineError::Refused {
                    reason: Void::AreaNotOpen { .. } | Void::AreaUsed { .. },
                    ..
                }) => continue,
                other => other,
            };
            self.note_fence(recorded)?;
            self.install_version();
            if !is_last {
                continue;
            }
            if is_empty {
                // For example the second publication of an area, by an owner that did not know of the
                // first.
                tracing::warn!(
                    region = %self.id(),
                    sequence = %pending.cause.sequence,
                    change = pending.obligation.name(),
                    "staging area no longer exists; obligation recorded without a change"
                );
            }
            if self.obligations().first() == Some(&pending) {
                return Err(EngineError::Internal {
                    detail: format!(
                        "region {}: the manifest does not show the obligation of sequence {}",
                        self.id(),
                        pending.cause.sequence
                    ),
                });
            }
            tracing::info!(
                region = %self.id(),
                sequence = %pending.cause.sequence,
                change = pending.obligation.name(),
                "obligation recorded in the manifest"
            );
        }
    }
}

impl Obligation {
    /// Returns true if rows below the obligation must be in files before it is recorded, and rows above
    /// it must not: compaction relies on memory holding no row that is older than a file.
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
