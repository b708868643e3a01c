//! `compaction list`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped, seconds_text};
use crate::output::terminal::note;
use crate::output::{self, Listed};

/// Options of `compaction list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater compaction list --output json\n\nNODE is the compactor that runs \
                        the job. In brackets: the data node that owns the region, when it runs the job \
                        itself or when no node runs it now."
)]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// One compaction. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct CompactionLine {
    job_id: String,
    region_id: u64,
    /// Compactor that runs the job; 0: the data node itself, or no node now.
    node_id: u64,
    /// `running`, `waiting` or `quarantined`.
    state: String,
    rows_read: u64,
    rows_written: u64,
    bytes_read: u64,
    bytes_in: u64,
    files_in: u32,
    attempts: u32,
    /// Data node that owns the region; 0: no data node knows of the job.
    owner_node: u64,
    why: String,
    seconds: f64,
    last_error: String,
}

impl From<v1::CompactionInfo> for CompactionLine {
    fn from(job: v1::CompactionInfo) -> Self {
        let done = job.done.unwrap_or_default();
        Self {
            job_id: job.job_id,
            region_id: job.region_id,
            node_id: job.node_id,
            state: job.state,
            rows_read: done.rows_read,
            rows_written: done.rows_written,
            bytes_read: done.bytes_read,
            bytes_in: job.bytes_in,
            files_in: job.files_in,
            attempts: job.attempts,
            owner_node: job.owner_node,
            why: job.why,
            seconds: job.age_ms as f64 / 1_000.0,
            last_error: job.last_error,
        }
    }
}

impl Listed for CompactionLine {
    const HEADINGS: &'static [&'static str] = &[
        "JOB",
        "REGION",
        "NODE",
        "STATE",
        "FILES",
        "SIZE",
        "READ",
        "ROWS IN",
        "ROWS OUT",
        "ATTEMPTS",
        "AGE",
        "LAST ERROR",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.job_id.clone(),
            self.region_id.to_string(),
            match self.node_id {
                0 => format!("({})", self.owner_node),
                node => node.to_string(),
            },
            self.state.clone(),
            self.files_in.to_string(),
            bytes_text(self.bytes_in),
            format!("{} %", percent(self.bytes_read, self.bytes_in)),
            grouped(self.rows_read),
            grouped(self.rows_written),
            self.attempts.to_string(),
            seconds_text(self.seconds),
            self.last_error.clone(),
        ]
    }
}

/// Returns the share in percent, at most 100: the number of bytes read is an estimate.
fn percent(read: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    (read.min(whole) as u128 * 100 / whole as u128) as u64
}

/// Lists the compactions of all regions, on data nodes and compactors.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let found = options.client.connect().await?.list_compactions().await?;
    for (node, why) in &found.silent {
        note(&format!(
            "warning: node {node} did not answer; the list lacks its compactions: {why}"
        ));
    }
    let lines: Vec<CompactionLine> = found.jobs.into_iter().map(CompactionLine::from).collect();
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_list_has_stable_json_fields() {
        let job = v1::CompactionInfo { age_ms: 1_500, owner_node: 101, ..Default::default() };
        let line = CompactionLine::from(job);
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"job_id":"","region_id":0,"node_id":0,"state":"","rows_read":0,"rows_written":0,"bytes_read":0,"bytes_in":0,"files_in":0,"attempts":0,"owner_node":101,"why":"","seconds":1.5,"last_error":""}"#
        );
        assert_eq!(line.cells().len(), CompactionLine::HEADINGS.len());
        assert_eq!(line.cells()[2], "(101)");
    }

    #[test]
    fn percentage_read_is_at_most_100() {
        assert_eq!([percent(0, 0), percent(5, 10), percent(11, 10)], [0, 50, 100]);
    }
}
