//! `collection policy TABLE`

use clap::{ArgGroup, Args};
use serde::Serialize;
use tidewater_proto::v1::{LagWriteFrontier, ReadPolicy, read_policy::Policy};

use super::list::CollectionLine;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::time_span::TimeSpan;

/// Options of `collection policy`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("policy").required(true).args(["lag", "valid_from", "keep_all", "default", "empty"]),
    after_help = "Example:\n  tidewater collection policy flights --lag 24h --granularity 1m\n  tidewater collection policy \
                  flights --default\n\nVersions of rows that only unreadable epochs return are dropped by the next flush, \
                  compaction or merge in memory. A policy that keeps more does not bring back epochs that cannot be read any \
                  more. Holds keep epochs in addition.\n\nThe history of the cluster is copied at the first hold or policy \
                  of a table. Repeat `collection policy T --default` after a change of `--history`. The default policy \
                  is listed as a lag."
)]
pub(crate) struct Options {
    /// Name of the table
    table: String,

    /// Keep the epochs of the last TIME before upper
    #[arg(long, value_name = "TIME")]
    lag: Option<TimeSpan>,

    /// Round the begin of --lag down to a multiple of this time, so that it moves in steps
    #[arg(
        long,
        value_name = "TIME",
        requires = "lag",
        // An option that excludes --lag would lift the requirement.
        conflicts_with_all = ["valid_from", "keep_all", "default", "empty"]
    )]
    granularity: Option<TimeSpan>,

    /// Keep the epochs from this one on
    #[arg(long, value_name = "EPOCH")]
    valid_from: Option<u64>,

    /// Keep all epochs from now on; the table grows with each overwritten row
    #[arg(long)]
    keep_all: bool,

    /// Keep the epochs of the history of the cluster (`meta --history`), as it is now
    #[arg(long)]
    default: bool,

    /// Keep no epoch: the table is dropped once it has no capabilities and no exports; holds keep its rows until they end
    #[arg(long)]
    empty: bool,

    #[command(flatten)]
    client: ClientArgs,
}

impl Options {
    /// Returns the policy; `None`: the history of the cluster.
    fn policy(&self) -> Option<ReadPolicy> {
        let policy = if let Some(lag) = self.lag {
            let granularity_ms = self.granularity.map_or(0, |time| time.0);
            Policy::LagWriteFrontier(LagWriteFrontier { lag_ms: lag.0, granularity_ms })
        } else if let Some(epoch) = self.valid_from {
            Policy::ValidFrom(epoch)
        } else if self.keep_all {
            Policy::NoPolicy(true)
        } else if self.empty {
            Policy::Empty(true)
        } else {
            return None;
        };
        Some(ReadPolicy { policy: Some(policy) })
    }
}

/// A table that is dropped by its policy. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Emptied {
    table: String,
    policy: &'static str,
}

/// Sets the read policy of a table.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let frontiers = client.set_read_policy(&options.table, options.policy()).await?;
    let Some(frontiers) = frontiers else {
        let emptied = Emptied { table: options.table, policy: "empty" };
        return fact(options.client.output, &emptied, |Emptied { table, .. }| {
            format!(
                "read policy of table {table} is empty: the table is dropped once it has no capabilities and no exports"
            )
        });
    };
    fact(options.client.output, &CollectionLine::from(frontiers), |line| {
        format!("read policy of table {}: {}; {}", line.table, line.policy, line.bounds())
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::policy_text::policy_text;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// Returns the text of the policy that a command line sets; `None`: it is invalid.
    fn set(arguments: &str) -> Option<String> {
        let words = ["policy", "t"].into_iter().chain(arguments.split_whitespace());
        let line = Line::try_parse_from(words).ok()?;
        Some(policy_text(line.options.policy().as_ref()))
    }

    #[test]
    fn policies_are_set_by_one_option() {
        for (arguments, text) in [
            ("--lag 24h", "lag 1d"),
            ("--lag 24h --granularity 1m", "lag 1d granularity 1m"),
            ("--valid-from 7", "valid-from 7"),
            ("--keep-all", "keep-all"),
            ("--default", "default"),
            ("--empty", "empty"),
        ] {
            assert_eq!(set(arguments).as_deref(), Some(text), "{arguments}");
        }
        for arguments in [
            "",
            "--granularity 1m",
            "--lag 1h --keep-all",
            "--default --granularity 1m",
            "--empty --default",
        ] {
            assert_eq!(set(arguments), None, "{arguments}");
        }
    }
}
