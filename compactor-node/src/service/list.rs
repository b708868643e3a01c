//! List of the running jobs.

use std::sync::Arc;

use tidewater_proto::compaction::v1::{ListCompactionsResponse, RunningCompaction};

use crate::context::CompactorContext;
use crate::jobs::RunningJob;

pub(super) fn call(context: &CompactorContext) -> ListCompactionsResponse {
    ListCompactionsResponse { jobs: context.jobs.list().iter().map(running).collect() }
}

fn running(job: &Arc<RunningJob>) -> RunningCompaction {
    let progress = &job.attempt.progress;
    let state = if progress.is_committing() { "committing" } else { "merging" };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    RunningCompaction {
        job_id: job.id.to_string(),
        dir: Some(job.dir.into()),
        attempt: job.number,
        source_node: job.source.get(),
        state: state.to_owned(),
        done: Some(progress.snapshot().into()),
        files_in: count(job.inputs.len()),
        bytes_in: job.bytes_in,
        memory_bytes: job.limits.memory_bytes,
        parallelism: count(job.limits.parallelism),
        age_ms: u64::try_from(job.began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}
