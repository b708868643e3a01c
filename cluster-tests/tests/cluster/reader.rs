//! A reader of the test table beside its writers: no row disappears, and a scan fails only when its node is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidewater_client::{Client, ClientError, ScanSpec};
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Scans of all columns, until the test stops them.
pub(crate) struct Reader {
    scans: Arc<Scans>,
    task: JoinHandle<Result<()>>,
}

#[derive(Debug, Default)]
struct Scans {
    stop: AtomicBool,
    whole: AtomicU64,
    /// Ended after their first rows.
    interrupted: AtomicU64,
}

impl Reader {
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        let client = Client::connect(options(cluster)).await;
        let client = client.map_err(|error| HarnessError::violated(error.to_string()))?;
        let scans = Arc::new(Scans::default());
        let task = tokio::spawn(scan_until(client, scans.clone()));
        Ok(Self { scans, task })
    }

    /// Returns the number of scans. Fails if one has failed.
    pub(crate) async fn stop(self) -> Result<u64> {
        match self.stop_after_faults().await? {
            (whole, 0) => Ok(whole),
            (_, interrupted) => {
                Err(HarnessError::violated(format!("{interrupted} scans were interrupted")))
            }
        }
    }

    /// Returns the number of scans, and of those that were interrupted after their first rows: a killed node ends
    /// the streams that it serves.
    pub(crate) async fn stop_after_faults(self) -> Result<(u64, u64)> {
        self.scans.stop.store(true, Ordering::SeqCst);
        self.task.await.map_err(|error| HarnessError::violated(error.to_string()))??;
        let [whole, interrupted] = [&self.scans.whole, &self.scans.interrupted];
        Ok((whole.load(Ordering::SeqCst), interrupted.load(Ordering::SeqCst)))
    }
}

/// Scans all rows again and again: none disappears.
async fn scan_until(client: Client, scans: Arc<Scans>) -> Result<()> {
    let failed = |error: ClientError| HarnessError::violated(format!("a scan failed: {error}"));
    let mut least = 0;
    while !scans.stop.load(Ordering::SeqCst) {
        let stream = client.scan(ScanSpec::all(LOG_TABLE)).await.map_err(failed)?;
        let batches = match stream.collect().await {
            Err(ClientError::ScanInterrupted { .. }) => {
                scans.interrupted.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            collected => collected.map_err(failed)?,
        };
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        if rows < least {
            return Err(HarnessError::violated(format!("{rows} rows after {least}")));
        }
        least = rows;
        scans.whole.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
