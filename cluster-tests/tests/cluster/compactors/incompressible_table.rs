//! Tables of incompressible rows, loaded as files that all overlap.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use tidewater_client::{Client, ClientOptions, ScanSpec};
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result};

use super::expect;

const TABLE: &str = "noise";
/// Incompressible bytes per row.
const NOISE: usize = 170;

/// Size of a table of incompressible rows.
pub(super) struct Noise {
    /// Number of loads. The files of each load overlap those of all others.
    pub(super) runs: i64,
    /// Rows per load.
    pub(super) rows: i64,
}

/// A loaded table.
pub(super) struct Loaded {
    client: Client,
    noise: Noise,
    /// Id of the table's region.
    pub(super) region: String,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Noise {
    /// Creates the table and loads it.
    pub(super) async fn load(self, cluster: &Cluster) -> Result<Loaded> {
        let columns = ["--columns", "id int64, noise binary", "--primary-key", "id"];
        let create = ["table", "create", TABLE, "--append-only"];
        cluster.run(&[&create[..], &columns].concat()).await?.ok()?;
        let client = client(cluster).await?;
        let loader = client.bulk_loader(TABLE).await.map_err(failed)?;
        for run in 0..self.runs {
            loader.write(self.batch(run)?).await.map_err(failed)?;
        }
        let region = cluster.region(TABLE).await?.region_id.to_string();
        let files = cluster.run(&["region", "files", &region, "--output", "json"]).await?;
        let files = files.ok()?.json()?;
        let files: Vec<_> = files.as_array().into_iter().flatten().collect();
        let firsts: BTreeSet<_> =
            files.iter().filter_map(|file| file["min_key"].as_str()).collect();
        expect("no two files have the same first key", firsts.len() == files.len(), files.len())?;
        let bytes = files.iter().filter_map(|file| file["bytes"].as_u64()).sum();
        Ok(Loaded { client, noise: self, region, files: files.len() as u64, bytes })
    }

    /// Returns the rows of load `run`: rows are dealt to the loads in turn.
    fn batch(&self, run: i64) -> Result<RecordBatch> {
        let ids = || (0..self.rows).map(|row| row * self.runs + run);
        let noise: ArrayRef = Arc::new(BinaryArray::from_iter_values(ids().map(noise)));
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids()));
        RecordBatch::try_from_iter([("id", ids), ("noise", noise)]).map_err(failed)
    }
}

impl Loaded {
    /// Number of rows.
    pub(super) fn rows(&self) -> u64 {
        (self.noise.runs * self.noise.rows).unsigned_abs()
    }

    /// Verifies that a scan returns every loaded row once, in order.
    pub(super) async fn expect_all_rows(&self) -> Result<()> {
        let mut scan = self.client.scan(ScanSpec::all(TABLE)).await.map_err(failed)?;
        let mut next = 0;
        while let Some(batch) = scan.next_batch().await {
            let batch = batch.map_err(failed)?;
            let ids = batch.column(0).as_primitive::<Int64Type>().values().iter();
            for (id, bytes) in ids.zip(batch.column(1).as_binary::<i32>()) {
                let same = *id == next && bytes == Some(&noise(next)[..]);
                expect("the scan returns the loaded rows in order", same, (id, next))?;
                next += 1;
            }
        }
        expect("the scan returns all rows", next.unsigned_abs() == self.rows(), next)
    }
}

async fn client(cluster: &Cluster) -> Result<Client> {
    let options = ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() };
    Client::connect(options).await.map_err(failed)
}

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

/// Returns the incompressible bytes of a row (SplitMix64).
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
