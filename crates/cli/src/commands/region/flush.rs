//! `region flush R`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::RegionId;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{Listed, list};

/// Options of `region flush`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater region flush 7\n  tidewater region flush --table flights"
)]
pub(crate) struct Options {
    /// Id of the region
    #[arg(required_unless_present = "table", conflicts_with = "table")]
    region: Option<u64>,

    /// Flush all regions of this table
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// One flush. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct FlushLine {
    region_id: u64,
    manifest_version: u64,
    flushed_sequence: u64,
    files: u32,
    rows: u64,
    bytes: u64,
}

impl Listed for FlushLine {
    const HEADINGS: &'static [&'static str] = &["REGION", "FILES", "ROWS", "SIZE", "MANIFEST"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.region_id.to_string(),
            self.files.to_string(),
            grouped(self.rows),
            bytes_text(self.bytes),
            self.manifest_version.to_string(),
        ]
    }
}

/// Flushes one region, or all regions of a table; returns when the flushes are committed.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let outcomes = match (options.region, &options.table) {
        (Some(region), _) => {
            let region = RegionId(region);
            vec![(region, client.flush_region(region).await)]
        }
        (None, Some(table)) => client
            .flush_table(table)
            .await?
            .into_iter()
            .map(|flush| (flush.region, flush.outcome))
            .collect(),
        (None, None) => return Err(Failure::usage("name a region, or a table with --table")),
    };
    let mut lines = Vec::new();
    let mut first_failure = None;
    for (region, outcome) in outcomes {
        match outcome {
            Ok(flush) => lines.push(FlushLine {
                region_id: region.get(),
                manifest_version: flush.manifest_version,
                flushed_sequence: flush.flushed_sequence,
                files: flush.files,
                rows: flush.rows,
                bytes: flush.bytes,
            }),
            Err(error) => {
                first_failure.get_or_insert(Failure::from(error));
            }
        }
    }
    if !lines.is_empty() {
        list(options.client.output, &lines)?;
    }
    first_failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_has_stable_json_fields() {
        let line = FlushLine {
            region_id: 1,
            manifest_version: 2,
            flushed_sequence: 3,
            files: 4,
            rows: 5,
            bytes: 6,
        };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"region_id":1,"manifest_version":2,"flushed_sequence":3,"files":4,"rows":5,"bytes":6}"#
        );
    }
}
