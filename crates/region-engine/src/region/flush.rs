//! The flush: freeze, write, commit, swap.

use std::sync::Arc;

use tidewater_common::ids::{ManifestVersion, OwnerEpoch, Sequence};
use tidewater_common::schema::WriteMode;

use super::Region;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::flush::{FlushPlan, write_files};
use crate::manifest::{ActionKind, Author, Change, Edit, PendingManifestHook};
use crate::memtable::Run;

/// What a flush did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushReport {
    /// The manifest's version after it.
    pub manifest_version: ManifestVersion,
    /// Every row at or below it lies in a live file.
    pub flushed_sequence: Sequence,
    /// Files written; 0 when there was nothing to flush.
    pub files: usize,
    /// Rows in them, deletes included.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a flush has chosen to write.
struct Frozen {
    own: OwnerEpoch,
    runs: Vec<Arc<Run>>,
    plan: FlushPlan,
    through: Sequence,
}

/// What a flush finds when it looks at the runs.
enum Choice {
    /// No rows.
    Nothing,
    /// The log has decided something that the manifest does not show.
    Owing,
    /// These runs.
    Runs(Frozen),
}

/// Lets all runs be merged again, also when the flush is dropped: else those that it had frozen
/// would pile up until the next one.
struct Thaw<'a>(&'a Region);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.contents.lock().frozen = None;
    }
}

impl Region {
    /// Writes all rows that were applied before the call to files and names them in the manifest.
    /// Only the owner may; flushes of a region go one after another. Writes and reads go on.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Fenced`], and those of the store and of a commit.
    /// After any of them the rows are where they were and the flush may be asked for again; when
    /// its outcome was unknown, the next call finds out first.
    pub async fn flush(&self) -> Result<FlushReport, EngineError> {
        let flushing = self.flushing.lock().await;
        let thaw = Thaw(self);
        let result = self.flush_frozen().await;
        drop(thaw);
        drop(flushing);
        // Memory is given back and the next flush may begin before anybody waits for a hook.
        let result = match result {
            Ok((report, receipt)) => {
                if let Some(receipt) = receipt {
                    receipt.fire().await;
                }
                Ok(report)
            }
            Err(error) => Err(error),
        };
        self.announcer.deliver().await;
        result
    }

    async fn flush_frozen(
        &self,
    ) -> Result<(FlushReport, Option<PendingManifestHook>), EngineError> {
        // Settles a commit of unknown outcome, so that nothing is written twice.
        self.contents.lock().phase.check_owner(self.id())?;
        self.manifest.refresh().await?;
        self.swap();
        let frozen = loop {
            self.settle_obligations().await?;
            match self.freeze(None).await? {
                Choice::Runs(frozen) => break frozen,
                // Each turn records what was found, so only a log that alters and truncates without
                // end keeps it going.
                Choice::Owing => {}
                Choice::Nothing => {
                    let contents = self.contents.lock();
                    let version = &contents.version;
                    return Ok((report(version.manifest, version.flushed, &[]), None));
                }
            }
        };
        let (report, receipt) = self.commit_frozen(&frozen).await?;
        Ok((report, Some(receipt)))
    }

    /// Flushes the rows below a sequence; under the lock of the flushes.
    pub(super) async fn flush_below(&self, sequence: Sequence) -> Result<(), EngineError> {
        let Choice::Runs(frozen) = self.freeze(Some(sequence)).await? else { return Ok(()) };
        let _thaw = Thaw(self);
        let (_, receipt) = self.commit_frozen(&frozen).await?;
        receipt.fire().await;
        Ok(())
    }

    async fn commit_frozen(
        &self,
        frozen: &Frozen,
    ) -> Result<(FlushReport, PendingManifestHook), EngineError> {
        let committed = match self.write_and_commit(frozen).await {
            // The garbage collector's floor has passed the new files: they get younger names.
            Err(EngineError::Refused { reason, .. }) => {
                tracing::info!(region = %self.spec.region_id, %reason, "the flush is written again");
                self.write_and_commit(frozen).await
            }
            result => result,
        };
        let (files, receipt) = self.note_fence(committed)?;
        let version = self.swap();
        let report = report(version, frozen.through, &files);
        tracing::debug!(
            region = %self.spec.region_id,
            manifest_version = %report.manifest_version,
            flushed_sequence = %report.flushed_sequence,
            files = report.files,
            rows = report.rows,
            bytes = report.bytes,
            "flushed"
        );
        Ok((report, receipt))
    }

    /// Chooses the runs to write, all or those below a sequence; from here on they are not merged
    /// any more.
    async fn freeze(&self, below: Option<Sequence>) -> Result<Choice, EngineError> {
        // A merge that is under way would bring frozen rows and later ones into one run.
        let _merging = self.merging.lock().await;
        let mut contents = self.contents.lock();
        let own = contents.phase.check_owner(self.id())?;
        // While the merge was waited for: rows above an alter must not lie in a file before the
        // manifest has the schema that they were written under, else a merge would drop what it
        // does not know. What lies below the first obligation may.
        if below.is_none() && !contents.obligations.is_empty() {
            return Ok(Choice::Owing);
        }
        let chosen = |run: &&Arc<Run>| below.is_none_or(|below| run.max_sequence() < below.get());
        let runs: Vec<Arc<Run>> = contents.runs.iter().filter(chosen).cloned().collect();
        let Some(through) = runs.iter().map(|run| run.max_sequence()).max() else {
            return Ok(Choice::Nothing);
        };
        // Merges stay on one side of it; rows that are recorded as flushed and are not would be lost.
        let left = contents.runs.iter().filter(|run| run.max_sequence() > through);
        if left.map(|run| run.min_sequence()).any(|first| first <= through) {
            return Err(EngineError::Internal {
                detail: format!(
                    "region {}: rows on both sides of {through} lie together",
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
            keep_deletes: upsert && !contents.version.files.is_empty(),
            target_bytes: self.env.options.target_file_bytes,
        };
        Ok(Choice::Runs(Frozen { own, runs, plan, through: Sequence(through) }))
    }

    async fn write_and_commit(
        &self,
        frozen: &Frozen,
    ) -> Result<(Vec<FileMeta>, PendingManifestHook), EngineError> {
        let gc_floor_ms = self.manifest.state().gc_floor_ms;
        let written =
            write_files(&self.env, frozen.plan.clone(), frozen.runs.clone(), gc_floor_ms).await?;
        let files = self.files_written(written).await;
        let edit = Edit { add: files.clone(), flushed: Some(frozen.through), ..Edit::default() };
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
