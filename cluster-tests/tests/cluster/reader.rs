//! A reader of the test table beside its writers: no scan fails, and no row disappears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidewater_client::{Client, ScanSpec};
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Scans of all columns, until the test stops them.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    scans: Arc<AtomicU64>,
    task: JoinHandle<Result<()>>,
}

impl Reader {
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        let client = Client::connect(options(cluster)).await;
        let client = client.map_err(|error| HarnessError::violated(error.to_string()))?;
        let (stop, scans) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(scan_until(client, stop.clone(), scans.clone()));
        Ok(Self { stop, scans, task })
    }

    /// Returns the number of scans. Fails if one has failed.
    pub(crate) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.map_err(|error| HarnessError::violated(error.to_string()))??;
        Ok(self.scans.load(Ordering::SeqCst))
    }
}

/// Scans all rows again and again: none disappears.
async fn scan_until(client: Client, stop: Arc<AtomicBool>, scans: Arc<AtomicU64>) -> Result<()> {
    let failed = |error: tidewater_client::ClientError| {
        HarnessError::violated(format!("a scan failed: {error}"))
    };
    let mut least = 0;
    while !stop.load(Ordering::SeqCst) {
        let stream = client.scan(ScanSpec::all(LOG_TABLE)).await.map_err(failed)?;
        let batches = stream.collect().await.map_err(failed)?;
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        if rows < least {
            return Err(HarnessError::violated(format!("{rows} rows after {least}")));
        }
        least = rows;
        scans.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
