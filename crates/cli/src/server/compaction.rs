//! Options of compaction on a data node.

use std::time::Duration;

use clap::Args;
use tidewater_data_node::leadership::compactions::placement::{
    BackgroundCompaction, CompactionPolicy,
};
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_data_node::options::DataOptions;

use crate::text::time_span::TimeSpan;

/// Options of compaction.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompactionArgs {
    /// Background compaction of regions
    #[arg(long, env = "TIDEWATER_COMPACTION", value_enum, default_value = "remote")]
    pub(crate) compaction: CompactionMode,

    /// Compact locally when no compactor accepts the job
    #[arg(long, env = "TIDEWATER_FALLBACK_TO_LOCAL", value_name = "BOOL", default_value_t = true,
          action = clap::ArgAction::Set)]
    pub(crate) fallback_to_local: bool,

    /// Time without progress after which a job on a compactor is aborted and retried; must exceed the
    /// total time of one call of each hook of a table
    #[arg(long, env = "TIDEWATER_COMPACTION_PATIENCE", value_name = "TIME", default_value = "30s")]
    pub(crate) compaction_patience: TimeSpan,

    /// Interval between checks for files to compact
    #[arg(long, env = "TIDEWATER_COMPACTION_EVERY", value_name = "TIME", default_value = "5s")]
    pub(crate) compaction_every: TimeSpan,

    /// Quarantine of the files of a compaction that failed three times
    #[arg(
        long,
        env = "TIDEWATER_COMPACTION_QUARANTINE",
        value_name = "TIME",
        default_value = "1h"
    )]
    pub(crate) compaction_quarantine: TimeSpan,
}

/// Mode of background compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CompactionMode {
    /// Offload to compactor nodes.
    Remote,
    /// Compact on the data node.
    Local,
    /// Compact only on request.
    Off,
}

impl CompactionArgs {
    /// Applies the arguments to the options of a data node.
    pub(crate) fn apply(&self, mut options: DataOptions) -> DataOptions {
        let policy = &mut options.groups.compactions;
        let jobs = JobPolicy {
            fallback_to_local: self.fallback_to_local,
            progress_timeout: positive(self.compaction_patience),
            quarantine: self.compaction_quarantine.duration(),
            ..policy.jobs
        };
        *policy = CompactionPolicy {
            background: match self.compaction {
                CompactionMode::Remote => BackgroundCompaction::Remote,
                CompactionMode::Local => BackgroundCompaction::Local,
                CompactionMode::Off => BackgroundCompaction::Off,
            },
            interval: positive(self.compaction_every),
            jobs,
            ..*policy
        };
        options
    }
}

/// Returns the interval, at least 1 ms: an interval of zero would be a busy loop.
fn positive(span: TimeSpan) -> Duration {
    span.duration().max(Duration::from_millis(1))
}
