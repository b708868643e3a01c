//! Reader that scans a refreshable table all the time: each scan has the rows of one version of the source (F1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{Array, AsArray, RecordBatch};
use tidewater_client::{Client, ScanSpec};
use tidewater_cluster_tests::{HarnessError, Result};
use tokio::task::JoinHandle;

use super::mirror::TABLE;
use super::versions::version_in;

/// A reader in the background.
pub(super) struct Reader {
    stop: Arc<AtomicBool>,
    scans: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Reader {
    /// Starts a reader. `rows_of`: number of rows of each version, whose name all its rows have.
    pub(super) fn start(client: Client, rows_of: fn(u64) -> u64) -> Self {
        let (stop, scans) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), scans.clone());
        let task = tokio::spawn(async move {
            let mut last = 0;
            while !stopped.load(Ordering::Relaxed) {
                let stream = client.scan(ScanSpec::all(TABLE)).await;
                let Ok(stream) = stream else { continue };
                // A node that was killed ends the scan.
                let Ok(batches) = stream.collect().await else { continue };
                let version = version_of(&batches, rows_of)?;
                if version < last {
                    let text = format!("version {version} was read after version {last}");
                    return Err(HarnessError::violated(text));
                }
                last = version;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, scans, task }
    }

    /// Ends the reader, and returns the number of its scans.
    pub(super) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.map_err(|error| HarnessError::violated(error.to_string()))??;
        Ok(self.scans.load(Ordering::Relaxed))
    }
}

/// Returns the version of all rows; 0: there are none.
fn version_of(batches: &[RecordBatch], rows_of: fn(u64) -> u64) -> Result<u64> {
    let mut version = None;
    let mut rows = 0;
    for batch in batches {
        let names = batch.column(1).as_string::<i32>();
        for row in 0..names.len() {
            let name = names.value(row);
            match (version, version_in(name)) {
                (_, None) => return Err(HarnessError::violated(format!("unknown row {name:?}"))),
                (None, of_row) => version = of_row,
                (Some(version), Some(of_row)) if version != of_row => {
                    let text = format!("a scan has rows of versions {version} and {of_row}");
                    return Err(HarnessError::violated(text));
                }
                _ => {}
            }
            rows += 1;
        }
    }
    let version = version.unwrap_or(0);
    if rows != rows_of(version) {
        let text = format!("{rows} rows of version {version}, expected {}", rows_of(version));
        return Err(HarnessError::violated(text));
    }
    Ok(version)
}
