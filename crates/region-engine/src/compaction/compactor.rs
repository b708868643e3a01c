//! Runs jobs: reads inputs, writes outputs. Needs a store and nothing of the region's state, so it
//! is the same on a data node, on a compactor node and in a program that embeds it.

use std::sync::Arc;

use futures::future::join_all;
use tidewater_common::keys::KeyRange;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::cut::{cut, parts};
use super::job::CompactionJob;
use super::progress::Attempt;
use super::sub_job::SubJob;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::file_meta::FileMeta;
use crate::flush::PARTS_UNDER_WAY;
use crate::flush::upload::upload;
use crate::hooks::SstFileInfo;
use crate::read::shape::TableShape;
use crate::sst::footer::footer;
use crate::sst::source::FileAccess;

/// A sub-job below this part of a file's target size is not worth it.
const LEAST_PART: u64 = 4;

/// Bytes that a sub-job takes beside its inputs: parts on their way, the row group being written.
const BESIDE: u64 = 48 << 20;

/// See the module's head.
#[derive(Debug, Clone)]
pub struct Compactor {
    env: RegionEnv,
}

impl Compactor {
    /// Works on the store of `env`, with its workers and within its options.
    pub fn new(env: RegionEnv) -> Self {
        Self { env }
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
        let ranges = self.sub_ranges(job).await?;
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
        let (sender, receiver) = mpsc::channel(PARTS_UNDER_WAY);
        let (dir, floor) = (sub_job.job.dir, sub_job.job.gc_floor_ms);
        let cancel = sub_job.attempt.cancel.clone();
        let merging = tokio::task::spawn_blocking(move || sub_job.run(sender));
        let (merged, uploaded) = tokio::join!(merging, upload(&self.env, dir, floor, receiver));
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
    async fn sub_ranges(&self, job: &CompactionJob) -> Result<Vec<KeyRange>, EngineError> {
        let options = &self.env.options.compaction;
        let group = |file: &FileMeta| file.size / u64::from(file.row_groups.max(1));
        // What is compressed in a row group and, for a while, decoded of it.
        let inputs: u64 = job.inputs.iter().map(group).map(|bytes| 2 * bytes).sum();
        let parts = parts(
            options.parallelism,
            job.bytes(),
            job.output.target_file_bytes as u64 / LEAST_PART,
            options.memory_bytes,
            inputs.saturating_add(BESIDE),
        );
        let mut firsts = Vec::new();
        if parts > 1 {
            for file in &job.inputs {
                let footer = footer(&self.env.storage, &self.env.footers, file).await?;
                firsts
                    .extend(footer.key_index.iter().filter(|key| file.clip.contains(key)).cloned());
            }
        }
        Ok(cut(&job.clip(), firsts, parts))
    }
}
