//! `region compact R` and `region compact --table T`

mod table;

use clap::Args;
use serde::Serialize;
use tidewater_client::Client;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::{CompactionPlace, CompactionReport};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped, seconds_text};
use crate::output::fact;
use crate::output::progress::Progress;

/// Options of `region compact`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater region compact 7\n  tidewater region compact 7 \
                        --remote --due\n  tidewater region compact --table flights\n\n`tidewater \
                        compaction list` shows it while it runs. With --table, a region that fails \
                        does not stop the others.")]
pub(crate) struct Options {
    /// Id of the region
    #[arg(required_unless_present = "table", conflicts_with = "table")]
    region: Option<u64>,

    /// Compact all regions of this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    /// Number of regions that are compacted at the same time, with --table
    #[arg(long, value_name = "N", default_value_t = 4, requires = "table",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,

    /// Compact on a compactor only [default: on a compactor, else on the data node]
    #[arg(long, conflicts_with = "local")]
    remote: bool,

    /// Compact on the data node that owns the region
    #[arg(long)]
    local: bool,

    /// Compact only the files that background compaction would choose, instead of all
    #[arg(long)]
    due: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Result of a compaction. The JSON field names are stable. `job_id` is null if there was nothing to
/// compact.
#[derive(Debug, Default, Serialize)]
struct Compacted {
    region_id: u64,
    job_id: Option<String>,
    why: Option<String>,
    manifest_version: Option<u64>,
    files_in: u32,
    files_out: u32,
    rows_read: u64,
    rows_written: u64,
    bytes_in: u64,
    bytes_out: u64,
    seconds: f64,
    /// Compactor that ran the job, or its last pass; 0: the data node.
    node_id: u64,
    /// Number of passes; the numbers above are those of all passes.
    passes: u32,
}

impl Compacted {
    fn new(region_id: u64, report: Option<CompactionReport>, seconds: f64) -> Self {
        let Some(report) = report else {
            return Self { region_id, seconds, ..Self::default() };
        };
        let done = report.done.unwrap_or_default();
        Self {
            region_id,
            job_id: Some(report.job_id),
            why: Some(report.why),
            manifest_version: Some(report.manifest_version),
            files_in: report.files_in,
            files_out: report.files_out,
            rows_read: done.rows_read,
            rows_written: done.rows_written,
            bytes_in: report.bytes_in,
            bytes_out: done.bytes_written,
            seconds,
            node_id: report.node_id,
            passes: report.passes.max(1),
        }
    }

    fn text(&self) -> String {
        if self.job_id.is_none() {
            return format!("region {}: nothing to compact", self.region_id);
        }
        format!(
            "region {}: compacted {} rows in {} files to {} rows in {} files, {} to {}, \
             in {}, on {}{}",
            self.region_id,
            grouped(self.rows_read),
            self.files_in,
            grouped(self.rows_written),
            self.files_out,
            bytes_text(self.bytes_in),
            bytes_text(self.bytes_out),
            seconds_text(self.seconds),
            match self.node_id {
                0 => "the data node".to_owned(),
                node => format!("compactor {node}"),
            },
            match self.passes {
                0 | 1 => String::new(),
                passes => format!(", in {passes} passes"),
            }
        )
    }
}

fn place(options: &Options) -> CompactionPlace {
    match (options.remote, options.local) {
        (true, _) => CompactionPlace::Remote,
        (false, true) => CompactionPlace::Local,
        (false, false) => CompactionPlace::Any,
    }
}

/// Compacts one region, or all regions of a table; returns when the results are committed.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    match (options.region, &options.table) {
        (Some(region), _) => compact_region(&client, &options, RegionId(region)).await,
        (None, Some(table)) => table::run(&client, &options, table).await,
        (None, None) => Err(Failure::usage("name a region, or a table with --table")),
    }
}

async fn compact_region(
    client: &Client,
    options: &Options,
    region: RegionId,
) -> Result<(), Failure> {
    let files = client.region_files(region).await?;
    let whole: u64 = files.iter().map(|file| file.bytes).sum();
    let mut progress = Progress::start("compacting");
    let report = client
        .compact_region(region, options.due, place(options), |done| {
            // Later passes read the output of earlier ones again.
            progress.update(done.rows_read, (done.bytes_read, whole.max(done.bytes_read)));
            if done.passes > 0 {
                progress.set_note(format!("pass {}", done.passes.saturating_add(1)));
            }
        })
        .await;
    let seconds = progress.finish();
    let compacted = Compacted::new(region.get(), report?, seconds);
    fact(options.client.output, &compacted, Compacted::text)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::CompactionProgress;

    use super::*;

    #[test]
    fn compaction_report_has_stable_json_fields() {
        let done = CompactionProgress {
            rows_read: 20,
            bytes_read: 0,
            rows_written: 10,
            bytes_written: 50,
            files_written: 1,
            steps: 3,
            passes: 1,
        };
        let report = CompactionReport {
            job_id: "j".to_owned(),
            manifest_version: 3,
            files_in: 2,
            bytes_in: 100,
            files_out: 1,
            done: Some(done),
            why: "asked".to_owned(),
            node_id: 201,
            passes: 2,
        };
        assert_eq!(
            serde_json::to_string(&Compacted::new(7, Some(report.clone()), 1.5)).unwrap(),
            r#"{"region_id":7,"job_id":"j","why":"asked","manifest_version":3,"files_in":2,"files_out":1,"rows_read":20,"rows_written":10,"bytes_in":100,"bytes_out":50,"seconds":1.5,"node_id":201,"passes":2}"#
        );
        assert_eq!(Compacted::new(7, None, 0.0).text(), "region 7: nothing to compact");
        let passes = |passes| {
            Compacted::new(7, Some(CompactionReport { passes, ..report.clone() }), 1.5).text()
        };
        assert!(passes(2).ends_with(", on compactor 201, in 2 passes"), "{}", passes(2));
        // A data node of an older release.
        assert!(passes(0).ends_with(", on compactor 201"), "{}", passes(0));
    }
}
