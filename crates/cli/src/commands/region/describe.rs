//! `region describe R`

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::RegionFilter;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{fact, table};

/// Options of `region describe`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater region describe 7\n  tidewater region describe 7 --digest"
)]
pub(crate) struct Options {
    /// Id of the region
    region: u64,

    /// Include a digest of the state of each replica, for comparison
    #[arg(long)]
    digest: bool,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Description {
    region_id: u64,
    table: String,
    table_id: u32,
    group_id: u64,
    schema_version: u32,
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node_id: u64,
    leader: bool,
    state: String,
    files: u32,
    bytes: u64,
    rows: u64,
    manifest_version: u64,
    memtable_bytes: u64,
    memtable_rows: u64,
    memtable_runs: u32,
    flushed_sequence: u64,
    last_sequence: u64,
    applied_index: u64,
    digest: Option<String>,
}

impl From<&v1::RegionInfo> for Replica {
    fn from(region: &v1::RegionInfo) -> Self {
        Self {
            node_id: region.node_id,
            leader: region.leader,
            state: region.state.clone(),
            files: region.files,
            bytes: region.bytes,
            rows: region.rows,
            manifest_version: region.manifest_version,
            memtable_bytes: region.memtable_bytes,
            memtable_rows: region.memtable_rows,
            memtable_runs: region.memtable_runs,
            flushed_sequence: region.flushed_sequence,
            last_sequence: region.last_sequence,
            applied_index: region.applied_index,
            digest: (!region.digest.is_empty()).then(|| region.digest.clone()),
        }
    }
}

/// Shows the state of a region on each of its replicas.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    client.route(RegionId(options.region)).await?;
    let filter = RegionFilter {
        table: None,
        region: Some(RegionId(options.region)),
        include_followers: true,
        with_digest: options.digest,
    };
    let (regions, silent) = client.list_regions(filter).await?;
    super::warn_about_silent_nodes(&silent);
    let Some(first) = regions.first() else {
        return Err(Failure::not_found(format!(
            "no reachable node has region {}: `tidewater cluster status` shows the problem",
            options.region
        )));
    };
    let description = Description {
        region_id: first.region_id,
        table: first.table.clone(),
        table_id: first.table_id,
        group_id: first.group_id,
        schema_version: first.schema_version,
        replicas: regions.iter().map(Replica::from).collect(),
    };
    fact(options.client.output, &description, text)
}

fn text(region: &Description) -> String {
    let head = format!(
        "region  {} of table {} (id {}), schema version {}\ngroup   {}\n",
        region.region_id, region.table, region.table_id, region.schema_version, region.group_id
    );
    let headings = [
        "NODE",
        "",
        "STATE",
        "FILES",
        "SIZE",
        "ROWS",
        "MANIFEST",
        "IN MEMORY",
        "RUNS",
        "FLUSHED",
        "LAST",
        "APPLIED",
        "DIGEST",
    ];
    let rows = region.replicas.iter().map(|replica| {
        vec![
            replica.node_id.to_string(),
            if replica.leader { "leader" } else { "follower" }.to_owned(),
            replica.state.clone(),
            replica.files.to_string(),
            bytes_text(replica.bytes),
            grouped(replica.rows),
            replica.manifest_version.to_string(),
            grouped(replica.memtable_rows),
            replica.memtable_runs.to_string(),
            replica.flushed_sequence.to_string(),
            replica.last_sequence.to_string(),
            replica.applied_index.to_string(),
            replica.digest.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    format!("{head}\n{}", table(&headings, rows))
}
