//! `region list`

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::RegionFilter;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{self, Listed};

/// Options of `region list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater region list --table flights --output json")]
pub(crate) struct Options {
    /// List regions of this table only
    #[arg(long, value_name = "TABLE", env = "TIDEWATER_TABLE")]
    table: Option<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// One region. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct RegionLine {
    region_id: u64,
    table: String,
    group_id: u64,
    files: u32,
    bytes: u64,
    rows: u64,
    manifest_version: u64,
    node_id: u64,
    memtable_bytes: u64,
    memtable_rows: u64,
    state: String,
}

impl From<v1::RegionInfo> for RegionLine {
    fn from(region: v1::RegionInfo) -> Self {
        Self {
            region_id: region.region_id,
            table: region.table,
            group_id: region.group_id,
            files: region.files,
            bytes: region.bytes,
            rows: region.rows,
            manifest_version: region.manifest_version,
            node_id: region.node_id,
            memtable_bytes: region.memtable_bytes,
            memtable_rows: region.memtable_rows,
            state: region.state,
        }
    }
}

impl Listed for RegionLine {
    const HEADINGS: &'static [&'static str] = &[
        "REGION",
        "TABLE",
        "GROUP",
        "NODE",
        "STATE",
        "FILES",
        "SIZE",
        "ROWS",
        "IN MEMORY",
        "MANIFEST",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.region_id.to_string(),
            self.table.clone(),
            self.group_id.to_string(),
            self.node_id.to_string(),
            self.state.clone(),
            self.files.to_string(),
            bytes_text(self.bytes),
            grouped(self.rows),
            grouped(self.memtable_rows),
            self.manifest_version.to_string(),
        ]
    }
}

/// Lists the regions as reported by their owners.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    if let Some(name) = &options.table {
        client.table(name).await?;
    }
    let filter = RegionFilter { table: options.table, ..RegionFilter::default() };
    let (regions, silent) = client.list_regions(filter).await?;
    super::warn_about_silent_nodes(&silent);
    let lines: Vec<RegionLine> = regions.into_iter().map(RegionLine::from).collect();
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_has_stable_json_fields() {
        let json = serde_json::to_string(&RegionLine::from(v1::RegionInfo::default())).unwrap();
        assert_eq!(
            json,
            r#"{"region_id":0,"table":"","group_id":0,"files":0,"bytes":0,"rows":0,"manifest_version":0,"node_id":0,"memtable_bytes":0,"memtable_rows":0,"state":""}"#
        );
    }
}
