//! Where and how a data node has its regions compacted.

use std::time::Duration;

use clap::Args;
use tidewater_data_node::leadership::compactions::placement::{BackgroundCompaction, CompactionPolicy};
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_data_node::options::DataOptions;

use crate::text::span::Span;

/// Options of compaction.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompactionArgs {
    /// Where regions are compacted by themselves: on compactor nodes when there are any, on this node,
    /// or nowhere (only when somebody asks)
    #[arg(long, env = "TIDEWATER_COMPACTION", value_enum, default_value = "remote")]
    pub(crate) compaction: Place,

    /// Whether this node does what no compactor takes
    #[arg(long, env = "TIDEWATER_FALLBACK_TO_LOCAL", value_name = "BOOL", default_value_t = true,
          action = clap::ArgAction::Set)]
    pub(crate) fallback_to_local: bool,

    /// A compaction on a compactor that makes no progress for so long is given up and tried elsewhere. All
    /// hooks of a table together must take less for one call each
    #[arg(long, env = "TIDEWATER_COMPACTION_PATIENCE", value_name = "TIME", default_value = "30s")]
    pub(crate) compaction_patience: Span,

    /// How often is looked for files to merge
    #[arg(long, env = "TIDEWATER_COMPACTION_EVERY", value_name = "TIME", default_value = "5s")]
    pub(crate) compaction_every: Span,

    /// How long the files of a compaction that failed three times are left alone
    #[arg(
        long,
        env = "TIDEWATER_COMPACTION_QUARANTINE",
        value_name = "TIME",
        default_value = "1h"
    )]
    pub(crate) compaction_quarantine: Span,
}

/// Where regions are compacted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// On compactor nodes.
    Remote,
    /// On the data node.
    Local,
    /// Nowhere.
    Off,
}

impl CompactionArgs {
    /// Puts them into a node's options.
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
                Place::Remote => BackgroundCompaction::Remote,
                Place::Local => BackgroundCompaction::Local,
                Place::Off => BackgroundCompaction::Off,
            },
            interval: positive(self.compaction_every),
            jobs,
            ..*policy
        };
        options
    }
}

/// An interval of nothing would be a loop that never rests.
fn positive(span: Span) -> Duration {
    span.duration().max(Duration::from_millis(1))
}
