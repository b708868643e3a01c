//! Flush of a region: freezes runs, writes them to files, commits the files, installs the new version.

use std::sync::Arc;

use tidewater_common::ids::{ManifestVersion, OwnerEpoch, Sequence};
use tidewater_common::schema::WriteMode;

use super::Region;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::flush::{FlushPlan, write_files};
use crate::manifest::{ActionKind, Author, Change, Edit, PendingManifestHook, Void};
use crate::memtable::{HeldRun, Run};
use crate::meters;

/// Result of a flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushReport {
    /// Manifest version after the flush.
    pub manifest_version: ManifestVersion,
    /// Every row at or below it is in a live file.
    pub flushed_sequence: Sequence,
    /// Files written; 0 when there was nothing to flush.
    pub files: usize,
    /// Rows in these files, including deletes.
    pub rows: u64,
    /// Total size of these files in bytes.
    pub bytes: u64,
}

/// Runs that a flush writes.
struct FrozenRuns {
    own: OwnerEpoch,
    runs: Vec<Arc<Run>>,
    plan: FlushPlan,
    through: Sequence,
}

/// Result of choosing the runs to flush.
enum FreezeOutcome {
    /// There are no rows to flush.
    Nothing,
    /// Obligations have to be recorded in the manifest first.
    ObligationsPending,
    /// Runs to write.
    Runs(FrozenRuns),
}

/// Allows merges of all runs again on drop, also when the flush future is dropped: otherwise the
/// frozen runs would accumulate until the next flush.
struct ThawGuard<'a>(&'a Region);

impl Drop for ThawGuard<'_> {
    fn drop(&mut self) {
        self.0.contents.lock().frozen = None;
    }
}

impl Region {
    /// Writes all rows that were applied before the call to files and adds the files to the manifest.
    /// Requires ownership. Flushes of a region are serialized; writes and reads continue.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], [`EngineError::Refused`] while the region is sealed,
    /// and errors of the store and of a commit. After any error the rows stay in memory and the flush can be
    /// retried. If the outcome was unknown, the next call resolves it first.
    pub async fn flush(&self) -> Result<FlushReport, EngineError> {
        let flushing = self.flushing.lock().await;
        let thaw = ThawGuard(self);
        let result = self.flush_frozen().await;
        drop(thaw);
        drop(flushing);
        // Hooks run after memory is released and the next flush can begin.
        let result = match result {
            Ok((report, receipt)) => {
                if let Some(receipt) = receipt {
                    receipt.fire().await;
                }
                Ok(report)
            }
            Err(error) => Err(error),
        };
        self.notifier.deliver().await;
        result
    }

    async fn flush_frozen(
        &self,
    ) -> Result<(FlushReport, Option<PendingManifestHook>), EngineError> {
        // Resolves a commit of unknown outcome, so that no row is written twice.
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.install_version();
        let frozen = loop {
            self.record_pending_obligations().await?;
            match self.freeze(None).await? {
                FreezeOutcome::Runs(frozen) => break frozen,
                // Each iteration records all obligations that it found, so the loop ends unless the log
                // alters and truncates indefinitely.
                FreezeOutcome::ObligationsPending => {}
                FreezeOutcome::Nothing => {
                    let contents = self.contents.lock();
                    let version = &contents.version;
                    return Ok((report(version.manifest, version.flushed, &[]), None));
                }
            }
        };
        let (report, receipt) = self.commit_frozen(&frozen).await?;
        Ok((report, Some(receipt)))
    }

    /// Flushes the rows below a sequence. The caller holds the flush lock.
    pub(super) async fn flush_below(&self, sequence: Sequence) -> Result<(), EngineError> {
        let FreezeOutcome::Runs(frozen) = self.freeze(Some(sequence)).await? else { return Ok(()) };
        let _thaw = ThawGuard(self);
        let (report, receipt) = self.commit_frozen(&frozen).await?;
        // The owner logs the flushes that it starts. It has no report of this one, and none at all if the
        // obligation fails afterwards.
        if report.files > 0 {
            tracing::info!(
                region = %self.spec.region_id,
                manifest_version = %report.manifest_version,
                flushed_sequence = %report.flushed_sequence,
                files = report.files,
                rows = report.rows,
                bytes = report.bytes,
                "region flushed for an obligation"
            );
        }
        receipt.fire().await;
        Ok(())
    }

    async fn commit_frozen(
        &self,
        frozen: &FrozenRuns,
    ) -> Result<(FlushReport, PendingManifestHook), EngineError> {
        // The commit would be refused: the rows stay in memory, and no file is written.
        self.check_not_sealed()?;
        let committed = match self.write_and_commit(frozen).await {
            // The GC floor has passed the ids of the new files: the rewrite gets newer ids.
            Err(EngineError::Refused { reason: reason @ Void::BelowFloor { .. }, .. }) => {
                tracing::info!(
                    region = %self.spec.region_id, %reason,
                    "manifest rejected the flush; rewriting its files with new ids"
                );
                self.write_and_commit(frozen).await
            }
            result => result,
        };
        let (files, receipt) = self.note_fence(committed)?;
        let version = self.install_version();
        let report = report(version, frozen.through, &files);
        if report.files > 0 {
            meters::record_flush(report.rows, report.bytes);
        }
        tracing::debug!(
            region = %self.spec.region_id,
            manifest_version = %report.manifest_version,
            flushed_sequence = %report.flushed_sequence,
            files = report.files,
            rows = report.rows,
            bytes = report.bytes,
            "flush committed"
        );
        Ok((report, receipt))
    }

    /// Chooses the runs to write, all or those below a sequence. From then on they are not merged.
    async fn freeze(&self, below: Option<Sequence>) -> Result<FreezeOutcome, EngineError> {
        // A merge in progress would combine frozen rows and later ones into one run.
        let _merging = self.merging.lock().await;
        let mut contents = self.contents.lock();
        let own = contents.phase.check_owner(self.id())?;
        // Obligations may have arrived while this call waited for the merge. Rows above an alter must
        // not be in a file before the manifest has the schema that they were written under: otherwise
        // a compaction would drop columns that it does not know. Rows below the first obligation may.
        if below.is_none() && !contents.obligations.is_empty() {
            return Ok(FreezeOutcome::ObligationsPending);
        }
        let chosen = |run: &&HeldRun| below.is_none_or(|below| run.max_sequence() < below.get());
        let runs = contents.runs.iter().filter(chosen);
        let runs: Vec<Arc<Run>> = runs.map(|held| held.run().clone()).collect();
        let Some(through) = runs.iter().map(|run| run.max_sequence()).max() else {
            return Ok(FreezeOutcome::Nothing);
        };
        // No run may contain rows on both sides of `through`: rows that are recorded as flushed, but
        // are not in a file, would be lost.
        let later = contents.runs.iter().filter(|run| run.max_sequence() > through);
        if later.map(|run| run.min_sequence()).any(|first| first <= through) {
            return Err(EngineError::Internal {
                detail: format!(
                    "region {}: a run has rows on both sides of sequence {through}",
                    self.id()
                ),
            });
        }
        contents.frozen = Some(through);
        let shape = contents.shape.clone();
        let upsert = shape.mode() == WriteMode::Upsert;
        let plan = FlushPlan {
            shape,
            dir: self.dir,
            flushed: contents.version.flushed.get(),
            since: contents.readable_since(),
            keep_deletes: upsert && !contents.version.files.is_empty(),
            target_bytes: self.env.options.target_file_bytes,
        };
        Ok(FreezeOutcome::Runs(FrozenRuns { own, runs, plan, through: Sequence(through) }))
    }

    async fn write_and_commit(
        &self,
        frozen: &FrozenRuns,
    ) -> Result<(Vec<FileMeta>, PendingManifestHook), EngineError> {
        let gc_floor_ms = self.manifest.state().gc_floor_ms;
        let written =
            write_files(&self.env, frozen.plan.clone(), frozen.runs.clone(), gc_floor_ms).await?;
        let files = self.notify_files_written(written).await;
        let since = Some(frozen.plan.since).filter(|since| since.get() > 0);
        let flushed = Some(frozen.through);
        let edit = Edit { add: files.clone(), flushed, since, ..Edit::default() };
        let change = Change::new(Author::Owner(frozen.own), vec![ActionKind::Edit(edit)]);
        let mut guard = self.manifest.lock().await;
        let receipt = self.manifest.update_locked(&mut guard, change).await?;
        Ok((files, receipt))
    }
}

fn report(
    manifest_version: ManifestVersion,
    flushed_sequence: Sequence,
    files: &[FileMeta],
) -> FlushReport {
    FlushReport {
        manifest_version,
        flushed_sequence,
        files: files.len(),
        rows: files.iter().map(|file| file.rows).sum(),
        bytes: files.iter().map(|file| file.size).sum(),
    }
}
