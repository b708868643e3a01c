//! Runs jobs: reads inputs, writes outputs. Needs a store and nothing of the region's state, so it
//! is the same on a data node, on a compactor node and in a program that embeds it.

use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use tidewater_common::ids::ManifestVersion;
use tidewater_common::keys::KeyRange;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::commit::commit;
use super::cut::cut;
use super::job::CompactionJob;
use super::options::CompactionOptions;
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

/// Footers of inputs that are read at once.
const FOOTERS_AT_ONCE: usize = 8;

/// See the module's head.
#[derive(Debug, Clone)]
pub struct Compactor {
    env: RegionEnv,
    limits: Limits,
}

/// What a job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sub-jobs at once; each keeps one core busy.
    pub parallelism: usize,
    /// Bytes of memory; with less, fewer sub-jobs run at once, but always one.
    pub memory_bytes: u64,
}

/// The region that a job is about, as seen by whoever carries the job out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) manifest: &'a ManifestContext,
    pub(crate) hooks: &'a RegionHooks,
    /// What the region is where its manifest does not say.
    pub(crate) spec: &'a RegionSpec,
}

/// A job that is done.
#[derive(Debug, Clone)]
pub struct Committed {
    /// A version that has the outputs.
    pub manifest_version: ManifestVersion,
    /// The files written.
    pub outputs: Vec<SstFileInfo>,
}

impl Compactor {
    /// Works on the store of `env`, with its workers and within its options.
    pub fn new(env: RegionEnv) -> Self {
        let limits = Limits::from(&env.options.compaction);
        Self { env, limits }
    }

    /// The same within other limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Carries out a job: merges, tells the hooks of the files, commits, tells the hooks of the commit.
    ///
    /// # Errors
    /// Those of [`merge`](Self::merge) and of a commit. Nothing has changed after any of them but
    /// [`EngineError::Unknown`], after which the manifest says, sooner or later.
    pub(crate) async fn compact(
        &self,
        target: Target<'_>,
        job: &CompactionJob,
        attempt: &Attempt,
    ) -> Result<Committed, EngineError> {
        let outputs = self.merge(job, attempt).await?;
        if attempt.cancel.is_cancelled() {
            return Err(cancelled(job));
        }
        attempt.progress.begins_to_commit();
        let metadata = Arc::new(target.spec.as_of(&target.manifest.state()));
        target.hooks.sst_files_written(metadata, outputs.clone().into()).await;
        attempt.progress.step();
        let files: Vec<FileMeta> = outputs.iter().map(|file| file.meta.clone()).collect();
        let manifest_version = commit(target.manifest, job, &files).await?;
        Ok(Committed { manifest_version, outputs })
    }

    /// Merges the inputs of a job and writes its outputs, which no manifest names yet. None when
    /// nothing is left of the rows.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`], and those of reading and writing. If one part fails, the job
    /// fails: there is no partial success. What was written is garbage then.
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
        // Ends the sub-jobs also when one of them fails, or this future is dropped.
        let inner = Attempt { cancel: attempt.cancel.child_token(), ..attempt.clone() };
        let _ends = inner.cancel.clone().drop_guard();
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
                // Those that were cancelled because another one failed say nothing.
                Err(error @ EngineError::Cancelled { .. }) => {
                    failed.get_or_insert(error);
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let (level, clip) = (job.output.level, job.clip());
        let with_clip = |file: SstFileInfo| SstFileInfo {
            meta: FileMeta { level, clip: clip.clone(), ..file.meta },
            ..file
        };
        Ok(files.into_iter().map(with_clip).collect())
    }

    async fn run(&self, sub_job: SubJob) -> Result<Vec<SstFileInfo>, EngineError> {
        let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let (dir, floor) = (sub_job.job.dir, sub_job.job.gc_floor_ms);
        let (cancel, job) = (sub_job.attempt.cancel.clone(), sub_job.job.clone());
        let merging = tokio::task::spawn_blocking(move || sub_job.run(sender));
        // A store that does not answer keeps no job that was cancelled.
        let end = async {
            cancel.cancelled().await;
            cancelled(&job)
        };
        let uploading = upload(&self.env, dir, floor, receiver, end);
        let (merged, uploaded) = tokio::join!(merging, uploading);
        let merged = merged.unwrap_or_else(|error| {
            Err(EngineError::Internal { detail: format!("a merge did not end: {error}") })
        });
        // When the upload failed, all that the merge can say is that nobody took its parts.
        let result = match (uploaded, merged) {
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(files), Ok(())) => Ok(files),
        };
        if result.is_err() {
            cancel.cancel();
        }
        result
    }

    /// Ranges of about equal size, as many as shall run at once.
    async fn sub_ranges(
        &self,
        job: &CompactionJob,
        attempt: &Attempt,
    ) -> Result<Vec<KeyRange>, EngineError> {
        let parts = job.sub_jobs(self.limits);
        let mut firsts = Vec::new();
        if parts > 1 {
            for files in job.inputs.chunks(FOOTERS_AT_ONCE) {
                let footers =
                    files.iter().map(|file| footer(&self.env.storage, &self.env.footers, file));
                for (file, footer) in files.iter().zip(try_join_all(footers).await?) {
                    attempt.progress.step();
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

impl From<&CompactionOptions> for Limits {
    fn from(options: &CompactionOptions) -> Self {
        Self { parallelism: options.parallelism, memory_bytes: options.memory_bytes }
    }
}
