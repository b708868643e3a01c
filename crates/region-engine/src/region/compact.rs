//! Compaction of a region by its owner: choose, run, commit, swap.
//!
//! Several may run at once, of different files. Writes, reads and flushes go on.

use std::collections::BTreeSet;

use tidewater_common::ids::{Epoch, JobId, ManifestVersion, Sequence};
use uuid::Uuid;

use super::{Contents, Region};
use crate::EngineError;
use crate::compaction::commit::commit;
use crate::compaction::plan::{Circumstances, Plan, plans};
use crate::compaction::{
    Attempt, CompactionJob, Compactor, OutputOptions, ProgressSnapshot, Scope, Why,
};
use crate::file_meta::{FileMeta, FileRef};
use crate::manifest::ManifestState;

/// Rows expire this much later for a compaction than for reads, in milliseconds: a node whose clock
/// is behind must not see an older version of a row that is gone.
const CLOCKS_DIFFER_MS: u64 = 600_000;

/// What a compaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionReport {
    /// Names the job.
    pub job_id: JobId,
    /// Why its files were chosen.
    pub why: Why,
    /// A manifest version that has its outputs.
    pub manifest_version: ManifestVersion,
    /// Files merged.
    pub files_in: usize,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Files written.
    pub files_out: usize,
    /// Rows and bytes, read and written.
    pub done: ProgressSnapshot,
}

/// A compaction that would be worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionDue {
    /// Why.
    pub why: Why,
    /// Files to merge.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// Files that a job has in hand, until it is dropped.
pub(super) struct Claim<'a> {
    region: &'a Region,
    files: Vec<FileRef>,
}

/// What a choice must leave alone.
struct Beside {
    busy: BTreeSet<FileRef>,
    obligation: Option<Sequence>,
}

impl Beside {
    fn of(contents: &Contents) -> Self {
        Self {
            busy: contents.compacting.clone(),
            obligation: contents.obligations.first().map(|pending| pending.cause.sequence),
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut contents = self.region.contents.lock();
        for file in &self.files {
            contents.compacting.remove(file);
        }
    }
}

impl Region {
    /// What the picker would merge now, the most useful first; whether this replica owns the region
    /// or not. Cheap; no I/O.
    pub fn compactions_due(&self) -> Vec<CompactionDue> {
        if self.contents.lock().phase.check_read(self.id()).is_err() {
            return Vec::new();
        }
        let state = self.manifest.state();
        self.plans(&state, Scope::Due, state.since)
            .iter()
            .map(|plan| CompactionDue {
                why: plan.why,
                files: plan.inputs.len(),
                bytes: plan.inputs.iter().map(|file| file.size).sum(),
            })
            .collect()
    }

    /// Merges files, if `scope` finds any to merge: waits for a permit, reads the manifest to its
    /// tail, chooses, merges, commits, swaps. `None`: there was nothing to do. Only the owner
    /// chooses, but the commit stands also when the region has got another owner meanwhile. `since`:
    /// versions at or below this epoch are left out but for the newest of each key.
    ///
    /// # Errors
    /// [`EngineError::NotOwner`], [`EngineError::Removed`], [`EngineError::Cancelled`],
    /// [`EngineError::Refused`] when the files were merged, truncated or dropped meanwhile, and
    /// those of the store and of a commit. Nothing has changed after any of them but
    /// [`EngineError::Unknown`], after which the next call finds out.
    pub async fn compact(
        &self,
        scope: Scope,
        since: Epoch,
        attempt: &Attempt,
    ) -> Result<Option<CompactionReport>, EngineError> {
        self.contents.lock().phase.check_owner(self.id())?;
        let _permit = tokio::select! {
            permit = self.env.compactions.acquire() => permit,
            () = attempt.cancel.cancelled() => {
                return Err(EngineError::Cancelled { region: self.id(), job: JobId(Uuid::nil()) });
            }
        };
        self.manifest.refresh().await?;
        self.swap();
        let Some((job, _claim)) = self.claim(scope, since)? else { return Ok(None) };
        let job_id = job.job_id;
        tracing::debug!(region = %self.id(), job = %job_id, why = ?job.why, "compaction begins");
        let written = Compactor::new(self.env.clone()).merge(&job, attempt).await?;
        if attempt.cancel.is_cancelled() {
            return Err(EngineError::Cancelled { region: self.id(), job: job_id });
        }
        let outputs = self.files_written(written).await;
        let committed = commit(&self.manifest, &job, &outputs).await;
        let manifest_version = self.note_fence(committed)?;
        self.swap();
        let report = report(&job, &outputs, manifest_version, attempt);
        tracing::info!(
            region = %self.id(),
            job = %job_id,
            why = ?report.why,
            manifest_version = %report.manifest_version,
            files_in = report.files_in,
            files_out = report.files_out,
            rows_in = report.done.rows_read,
            rows_out = report.done.rows_written,
            bytes_out = report.done.bytes_written,
            "compacted"
        );
        Ok(Some(report))
    }

    /// Chooses, and holds the files against other jobs of this replica.
    pub(super) fn claim(
        &self,
        scope: Scope,
        since: Epoch,
    ) -> Result<Option<(CompactionJob, Claim<'_>)>, EngineError> {
        let mut contents = self.contents.lock();
        contents.phase.check_owner(self.id())?;
        // Under the lock: a state from before would go with obligations that have been settled since.
        let state = self.manifest.state();
        let since = since.max(state.since);
        let beside = Beside::of(&contents);
        let Some(plan) = self.plans_beside(&state, scope, since, &beside).into_iter().next() else {
            return Ok(None);
        };
        let files: Vec<FileRef> = plan.inputs.iter().map(FileMeta::reference).collect();
        contents.compacting.extend(files.iter().cloned());
        drop(contents);
        Ok(Some((self.job(&state, plan, since), Claim { region: self, files })))
    }

    fn plans(&self, state: &ManifestState, scope: Scope, since: Epoch) -> Vec<Plan> {
        let beside = Beside::of(&self.contents.lock());
        self.plans_beside(state, scope, since, &beside)
    }

    fn plans_beside(
        &self,
        state: &ManifestState,
        scope: Scope,
        since: Epoch,
        beside: &Beside,
    ) -> Vec<Plan> {
        let spec = self.described(state);
        let with = Circumstances {
            schema: &spec.schema,
            table: &spec.options,
            options: &self.env.options.compaction,
            target_file_bytes: self.env.options.target_file_bytes,
            since,
            now_ms: self.expiry_now(),
            busy: &beside.busy,
            obligation: beside.obligation,
        };
        plans(state, scope, with)
    }

    // By the manifest's schema: no file that it names has a newer one.
    fn job(&self, state: &ManifestState, plan: Plan, since: Epoch) -> CompactionJob {
        let spec = self.described(state);
        CompactionJob {
            job_id: self.env.ids.job_id(self.env.clock.now_ms()),
            dir: self.dir,
            schema: spec.schema,
            options: spec.options,
            inputs: plan.inputs,
            older: plan.older,
            since,
            now_ms: self.expiry_now(),
            gc_floor_ms: state.gc_floor_ms,
            output: OutputOptions {
                level: plan.level,
                target_file_bytes: self.env.options.target_file_bytes,
            },
            window_ms: plan.window_ms,
            why: plan.why,
        }
    }

    fn expiry_now(&self) -> u64 {
        self.env.clock.now_ms().saturating_sub(CLOCKS_DIFFER_MS)
    }
}

fn report(
    job: &CompactionJob,
    outputs: &[FileMeta],
    manifest_version: ManifestVersion,
    attempt: &Attempt,
) -> CompactionReport {
    CompactionReport {
        job_id: job.job_id,
        why: job.why,
        manifest_version,
        files_in: job.inputs.len(),
        bytes_in: job.bytes(),
        files_out: outputs.len(),
        done: attempt.progress.snapshot(),
    }
}
