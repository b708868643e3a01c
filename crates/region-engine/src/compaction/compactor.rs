//! Executes jobs: reads inputs, writes outputs. Needs a store and none of the region's in-memory
//! state, so it is the same on a data node, on a compactor node and in a program that embeds it.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use tidewater_common::ids::ManifestVersion;
use tidewater_common::keys::KeyRange;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::commit::commit;
use super::cut::cut;
use super::job::CompactionJob;
use super::options::CompactionLimits;
use super::progress::Attempt;
use super::sub_job::SubJob;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::file_meta::FileMeta;
use crate::flush::PARTS_IN_FLIGHT;
use crate::flush::upload::upload;
use crate::hooks::{RegionHooks, SstFileInfo};
use crate::manifest::ManifestContext;
use crate::read::shape::TableShape;
use crate::region::RegionSpec;
use crate::sst::footer::footer;
use crate::sst::source::FileAccess;

/// Footers of inputs that are read concurrently.
const CONCURRENT_FOOTERS: usize = 8;

/// Executes compaction jobs within limits.
#[derive(Debug, Clone)]
pub struct Compactor {
    env: RegionEnv,
    limits: CompactionLimits,
}

/// The region of a job, as seen by the executing node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompactionTarget<'a> {
    pub(crate) manifest: &'a ManifestContext,
    pub(crate) hooks: &'a RegionHooks,
    /// Description of the region for fields that its manifest lacks.
    pub(crate) spec: &'a RegionSpec,
}

/// Result of a committed job.
#[derive(Debug, Clone)]
pub struct CommittedCompaction {
    /// A manifest version that contains the outputs.
    pub manifest_version: ManifestVersion,
    /// The written files.
    pub outputs: Vec<SstFileInfo>,
}

impl Compactor {
    /// Creates a compactor on the store of `env`, with its workers and within its options.
    pub fn new(env: RegionEnv) -> Self {
        let limits = CompactionLimits::from(&env.options.compaction);
        Self { env, limits }
    }

    /// Returns the compactor with other limits.
    #[must_use]
    pub fn with_limits(self, limits: CompactionLimits) -> Self {
        Self { limits, ..self }
    }

    /// Executes a job: merges, notifies the hooks of the files, commits, notifies the hooks of the
    /// commit.
    ///
    /// # Errors
    /// Those of [`merge`](Self::merge) and of a commit. Nothing has changed after any of them
    /// except [`EngineError::Unknown`], after which a later read of the manifest shows the outcome.
    pub(crate) async fn compact(
        &self,
        target: CompactionTarget<'_>,
        job: &CompactionJob,
        attempt: &Attempt,
    ) -> Result<CommittedCompaction, EngineError> {
        let outputs = self.merge(job, attempt).await?;
        if attempt.cancel.is_cancelled() {
            return Err(cancelled(job));
        }
        attempt.progress.mark_committing();
        let metadata = Arc::new(target.spec.as_of(&target.manifest.state()));
        target.hooks.sst_files_written(metadata, outputs.clone().into()).await;
        attempt.progress.record_step();
        let files: Vec<FileMeta> = outputs.iter().map(|file| file.meta.clone()).collect();
        let manifest_version = commit(target.manifest, job, &files).await?;
        Ok(CommittedCompaction { manifest_version, outputs })
    }

    /// Merges the inputs of a job and writes its outputs, which no manifest references yet. Returns
    /// no file when no row is left.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`], and those of reading and writing. If one sub-job fails, the job
    /// fails: there is no partial success. The files written by then are garbage.
    pub async fn merge(
        &self,
        job: &CompactionJob,
        attempt: &Attempt,
    ) -> Result<Vec<SstFileInfo>, EngineError> {
        let shape = Arc::new(TableShape::new(job.schema.clone(), job.options.clone())?);
        let ranges = tokio::select! {
            biased;
            () = attempt.cancel.cancelled() => return Err(cancelled(job)),
            ranges = self.sub_ranges(job, attempt) => ranges?,
        };
        // Also ends the sub-jobs when one of them fails, or this future is dropped.
        let inner = Attempt { cancel: attempt.cancel.child_token(), ..attempt.clone() };
        let _cancel_on_drop = inner.cancel.clone().drop_guard();
        let job = Arc::new(job.clone());
        let running = ranges.into_iter().map(|range| {
            let sub_job = SubJob {
                job: job.clone(),
                shape: shape.clone(),
                access: FileAccess::new(&self.env, job.bytes()),
                range,
                attempt: inner.clone(),
                workers: self.env.workers.clone(),
                runtime: Handle::current(),
            };
            self.run(sub_job)
        });
        let mut files = Vec::new();
        let mut failed: Option<EngineError> = None;
        for result in join_all(running).await {
            match result {
                Ok(written) => files.extend(written),
                // A sub-job that was cancelled because another one failed does not hide that error.
                Err(error @ EngineError::Cancelled { .. }) => {
                    failed.get_or_insert(error);
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let level = job.output.level;
        let clip = job.clip();
        let with_clip = |file: SstFileInfo| SstFileInfo {
            meta: FileMeta { level, clip: clip.clone(), ..file.meta },
            ..file
        };
        Ok(files.into_iter().map(with_clip).collect())
    }

    async fn run(&self, sub_job: SubJob) -> Result<Vec<SstFileInfo>, EngineError> {
        let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let dir = sub_job.job.dir;
        let floor = sub_job.job.gc_floor_ms;
        let cancel = sub_job.attempt.cancel.clone();
        let job = sub_job.job.clone();
        let merging = tokio::task::spawn_blocking(move || sub_job.run(sender));
        // A store that does not answer must not block a cancelled job.
        let cancelled = async {
            cancel.cancelled().await;
            cancelled(&job)
        };
        let uploading = upload(&self.env, dir, floor, receiver, cancelled);
        let (merged, uploaded) = tokio::join!(merging, uploading);
        let merged = merged.unwrap_or_else(|error| {
            Err(EngineError::Internal { detail: format!("merge task failed: {error}") })
        });
        // After a failed upload the merge only reports that its channel closed.
        let result = match (uploaded, merged) {
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(files), Ok(())) => Ok(files),
        };
        if result.is_err() {
            cancel.cancel();
        }
        result
    }

    /// Returns ranges of about equal size, one for each concurrent sub-job.
    async fn sub_ranges(
        &self,
        job: &CompactionJob,
        attempt: &Attempt,
    ) -> Result<Vec<KeyRange>, EngineError> {
        let parts = job.sub_jobs(self.limits);
        let mut firsts = Vec::new();
        if parts > 1 {
            for files in job.inputs.chunks(CONCURRENT_FOOTERS) {
                let footers =
                    files.iter().map(|file| footer(&self.env.storage, &self.env.footers, file));
                for (file, footer) in files.iter().zip(try_join_all(footers).await?) {
                    attempt.progress.record_step();
                    let shown = footer.key_index.iter().filter(|key| file.clip.contains(key));
                    firsts.extend(shown.cloned());
                }
            }
        }
        Ok(cut(&job.clip(), firsts, parts))
    }
}

fn cancelled(job: &CompactionJob) -> EngineError {
    EngineError::Cancelled { region: job.dir.region_id, job: job.job_id }
}
