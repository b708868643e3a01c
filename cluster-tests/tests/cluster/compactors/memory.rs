//! Compactors stay within `--memory-limit`, however much they merge.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use tidewater_client::{Client, ClientOptions, ScanSpec};
use tidewater_cluster_tests::cluster::{Cluster, Plan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::{done_by, expect};
use crate::support::SETTLED_WITHIN;

const TABLE: &str = "noise";
/// The least that is accepted.
const LIMIT: u64 = 256 << 20;
/// Loads; the files of one overlap those of all others.
const RUNS: i64 = 3;
/// Rows of a load.
const ROWS: i64 = 1_600_000;
/// Bytes of a row that nothing compresses.
const NOISE: usize = 170;

async fn client(cluster: &Cluster) -> Result<Client> {
    let options = ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() };
    Client::connect(options).await.map_err(failed)
}

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

/// What stands in the row of this id (SplitMix64).
fn noise(id: i64) -> [u8; NOISE] {
    let mut bytes = [0; NOISE];
    let mut state = id.unsigned_abs().wrapping_mul(0xd1b5_4a32_d192_ed03);
    for part in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..part.len()]);
    }
    bytes
}

/// Every so many-th row.
fn rows(run: i64) -> Result<RecordBatch> {
    let ids = || (0..ROWS).map(|row| row * RUNS + run);
    let noise: ArrayRef = Arc::new(BinaryArray::from_iter_values(ids().map(noise)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids()));
    RecordBatch::try_from_iter([("id", ids), ("noise", noise)]).map_err(failed)
}

/// Every row is there once, in order, as it was loaded.
async fn all_is_there(client: &Client) -> Result<()> {
    let mut scan = client.scan(ScanSpec::all(TABLE)).await.map_err(failed)?;
    let mut next = 0;
    while let Some(batch) = scan.next_batch().await {
        let batch = batch.map_err(failed)?;
        let ids = batch.column(0).as_primitive::<Int64Type>().values().iter();
        for (id, bytes) in ids.zip(batch.column(1).as_binary::<i32>()) {
            let same = *id == next && bytes == Some(&noise(next)[..]);
            expect("rows follow each other as loaded", same, (id, next))?;
            next += 1;
        }
    }
    expect("all rows", next == RUNS * ROWS, next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_of_several_times_its_memory_stays_within_the_limit() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let mut cluster = plan.prepare().await?;
    let limit = ("TIDEWATER_MEMORY_LIMIT".to_owned(), LIMIT.to_string());
    cluster.compactors[0].spec.env.push(limit);
    cluster.start_all().await?;
    cluster.healthy().await?;
    let columns = ["--columns", "id int64, noise binary", "--primary-key", "id"];
    let create = ["table", "create", TABLE, "--append-only"];
    cluster.run(&[&create[..], &columns].concat()).await?.ok()?;
    let client = client(&cluster).await?;
    let loader = client.bulk_loader(TABLE).await.map_err(failed)?;
    for run in 0..RUNS {
        loader.write(rows(run)?).await.map_err(failed)?;
    }
    let region = cluster.region(TABLE).await?.region_id.to_string();
    let files = cluster.run(&["region", "files", &region, "--output", "json"]).await?;
    let files = files.ok()?.json()?;
    let files: Vec<_> = files.as_array().into_iter().flatten().collect();
    let bytes: u64 = files.iter().filter_map(|file| file["bytes"].as_u64()).sum();
    expect("that is several times the limit", bytes >= 3 * LIMIT, bytes)?;
    let firsts: BTreeSet<_> = files.iter().filter_map(|file| file["min_key"].as_str()).collect();
    expect("each load has files of its own", firsts.len() == files.len(), files.len())?;

    let compact = ["region", "compact", &region, "--remote", "--output", "json"];
    let compactor = &cluster.compactors[0];
    let node = cluster.node_id(&compactor.spec).await?;
    let report = wait::until("the owner knows the compactor", SETTLED_WITHIN, || async {
        let said = cluster.run(&compact).await;
        let report = said.and_then(|said| done_by(said, node, files.len() as u64));
        report.map_err(|error| error.to_string())
    })
    .await?;
    let rows = (RUNS * ROWS).unsigned_abs();
    expect("nothing is left out", report["rows_written"] == rows, &report)?;
    let peak = compactor.memory()?.peak;
    println!("{} MiB were merged with a peak of {} MiB", bytes >> 20, peak >> 20);
    expect("a compactor stays within its limit", peak <= LIMIT, peak)?;
    all_is_there(&client).await?;
    cluster.finish().await
}
