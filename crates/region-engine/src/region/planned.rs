//! A planned compaction of a region: run locally or offloaded to a compactor.

use std::sync::Arc;

use tidewater_common::ids::{JobId, ManifestVersion};

use super::Region;
use crate::EngineError;
use crate::compaction::compactor::CompactionTarget;
use crate::compaction::{
    Attempt, CompactionJob, CompactionLimits, CompactionPlan, CompactionReason, Compactor,
    LocalSlot, ProgressSnapshot, Remainder,
};
use crate::hooks::ManifestKind;
use crate::manifest::Author;
use crate::manifest::history::{History, history};

/// Number of deltas per read when searching for the delta of a job.
const DELTAS_PER_READ: u64 = 64;

/// Result of a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionReport {
    /// Id of the job.
    pub job_id: JobId,
    /// Reason for choosing the input files.
    pub why: CompactionReason,
    /// A manifest version that contains the output files.
    pub manifest_version: ManifestVersion,
    /// Number of input files.
    pub files_in: usize,
    /// Size of the input files in bytes.
    pub bytes_in: u64,
    /// Number of output files.
    pub files_out: usize,
    /// Rows and bytes read and written.
    pub done: ProgressSnapshot,
    /// Number of passes; the numbers above are those of all passes.
    pub passes: u32,
    /// Files that a pass over all files has left to later passes.
    pub remainder: Option<Remainder>,
}

impl CompactionReport {
    /// Returns the report on this pass and a later one.
    #[must_use]
    pub(crate) fn followed_by(self, later: Self) -> Self {
        Self {
            files_in: self.files_in + later.files_in,
            bytes_in: self.bytes_in.saturating_add(later.bytes_in),
            files_out: self.files_out + later.files_out,
            done: self.done.plus(later.done),
            passes: self.passes.saturating_add(later.passes),
            ..later
        }
    }
}

/// A compaction that the owner has planned. Until it is dropped, other compactions of this replica
/// leave its input files alone.
#[derive(Debug)]
pub struct PlannedCompaction {
    pub(super) region: Arc<Region>,
    pub(super) plan: CompactionPlan,
    pub(super) job: CompactionJob,
    /// Earlier ids, whose attempts may still be running.
    pub(super) earlier_ids: Vec<JobId>,
    /// Manifest version from which it was planned.
    pub(super) version: ManifestVersion,
    /// Files that are left to later passes.
    pub(super) remainder: Option<Remainder>,
}

/// Outcome of a compaction according to the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionOutcome {
    /// All input files are live: the compaction is not committed, and still can be.
    Open,
    /// The output files are in the manifest.
    Committed {
        /// Manifest version of the commit.
        version: ManifestVersion,
        /// Number of output files.
        files_out: usize,
    },
    /// The input files were compacted by another job, truncated or dropped: the compaction can never
    /// be committed.
    Superseded,
}

impl Drop for PlannedCompaction {
    fn drop(&mut self) {
        let mut contents = self.region.contents.lock();
        for file in &self.plan.inputs {
            contents.compacting.remove(file);
        }
    }
}

impl PlannedCompaction {
    /// The plan, as it is sent to a compactor.
    pub fn plan(&self) -> &CompactionPlan {
        &self.plan
    }

    /// The resolved job of the plan.
    pub fn job(&self) -> &CompactionJob {
        &self.job
    }

    /// Returns the files that are left to later passes; `None`: this is the last pass.
    pub fn remainder(&self) -> Option<Remainder> {
        self.remainder
    }

    /// Assigns a new job id to the same input files. [`resolve_outcome`](Self::resolve_outcome) still
    /// recognizes attempts under earlier ids.
    #[must_use]
    pub fn with_new_job_id(mut self) -> Self {
        let env = &self.region.env;
        self.earlier_ids.push(self.plan.job_id);
        self.plan.job_id = env.ids.job_id(env.clock.now_ms());
        self.job.job_id = self.plan.job_id;
        self
    }

    /// Runs the compaction locally, in one of the [slots](crate::env::RegionEnv::compactions): waits for
    /// its admission, rewrites the files, commits, installs the new version.
    ///
    /// # Errors
    /// As [`Region::compact`].
    pub async fn run(
        &self,
        slot: &LocalSlot,
        attempt: &Attempt,
    ) -> Result<CompactionReport, EngineError> {
        let region = &self.region;
        let job = &self.job;
        let limits = self.admit(slot, attempt).await?;
        tracing::debug!(region = %region.id(), job = %job.job_id, why = ?job.why, "compaction started");
        let target = CompactionTarget {
            manifest: &region.manifest,
            hooks: &region.hooks,
            spec: &region.spec,
        };
        let compactor = Compactor::new(region.env.clone()).with_limits(limits);
        let committed = compactor.compact(target, job, attempt).await;
        let committed = region.note_fence(committed)?;
        region.install_version();
        let done = attempt.progress.snapshot();
        let report = self.report(committed.manifest_version, committed.outputs.len(), done);
        tracing::debug!(
            region = %region.id(),
            job = %job.job_id,
            why = ?report.why,
            manifest_version = %report.manifest_version,
            files_in = report.files_in,
            files_out = report.files_out,
            rows_in = report.done.rows_read,
            rows_out = report.done.rows_written,
            bytes_out = report.done.bytes_written,
            "local compaction finished"
        );
        Ok(report)
    }

    async fn admit(
        &self,
        slot: &LocalSlot,
        attempt: &Attempt,
    ) -> Result<CompactionLimits, EngineError> {
        let region = self.region.id();
        let admitted = tokio::select! {
            biased;
            () = attempt.cancel.cancelled() => {
                return Err(EngineError::Cancelled { region, job: self.job.job_id });
            }
            admitted = slot.admit(&self.job, &attempt.progress) => admitted,
        };
        admitted.map_err(|why| EngineError::NotAdmitted { region, why })
    }

    /// Returns the report on the committed compaction. `done`: its work.
    pub fn report(
        &self,
        manifest_version: ManifestVersion,
        files_out: usize,
        done: ProgressSnapshot,
    ) -> CompactionReport {
        CompactionReport {
            job_id: self.job.job_id,
            why: self.job.why,
            manifest_version,
            files_in: self.job.inputs.len(),
            bytes_in: self.job.bytes(),
            files_out,
            done,
            passes: 1,
            remainder: self.remainder,
        }
    }

    /// Reads the manifest to its tail, installs the new version, and returns the outcome of the attempts
    /// on compactors.
    ///
    /// # Errors
    /// Errors of reading the manifest. A dropped region is not an error.
    pub async fn resolve_outcome(&self) -> Result<CompactionOutcome, EngineError> {
        match self.region.load().await {
            Ok(_) | Err(EngineError::Removed { .. }) => {}
            Err(error) => return Err(error),
        }
        let state = self.region.manifest.state();
        if !state.is_removed() && self.plan.inputs.iter().all(|file| state.live.contains_key(file))
        {
            return Ok(CompactionOutcome::Open);
        }
        let mut after = self.version;
        // Deltas may have been garbage collected since. Without them the compaction counts as superseded.
        while let History::Deltas(past) =
            history(&self.region.env, self.region.dir, after, DELTAS_PER_READ).await?
        {
            for entry in past {
                after = entry.delta.version;
                let is_author = |job: &JobId| entry.delta.author == Author::Job(*job);
                let ours = is_author(&self.plan.job_id) || self.earlier_ids.iter().any(is_author);
                if ours && entry.manifest == ManifestKind::Live {
                    let files_out = entry.delta.files_added().count();
                    return Ok(CompactionOutcome::Committed { version: after, files_out });
                }
            }
        }
        Ok(CompactionOutcome::Superseded)
    }
}
