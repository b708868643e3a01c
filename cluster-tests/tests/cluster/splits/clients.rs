//! Clients of a cluster whose nodes fail: writers, readers, an operator of loads and alters, and administrators that
//! change routes. At the end, an oracle checks every row.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewater_cluster_tests::batches::Operator;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::registers::Registers;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::task::{JoinError, JoinHandle};

use super::administrator::{Administrator, Completed, TABLES, check_ended};
use crate::hook_calls;
use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude};

/// Writers of registers, and readers.
const WRITERS: i64 = 4;

/// Running clients.
pub(super) struct Clients {
    pub(super) load: Workload,
    pub(super) completed: Arc<Completed>,
    reader: Reader,
    registers: Registers,
    operator: JoinHandle<Result<String>>,
    administrators: Vec<JoinHandle<Result<()>>>,
    /// File of a durable hook on all tables.
    audit: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Clients {
    /// Creates the tables and starts all clients.
    pub(super) async fn start(cluster: &Cluster, seed: u64) -> Result<Self> {
        let audit = hook_calls::add(cluster, "audit", &[]).await?;
        cluster.create_log_table().await?;
        let load = Workload::start(cluster, LoadOptions::default()).await?;
        let reader = Reader::start(cluster).await?;
        let registers = Registers::start(cluster, WRITERS, seed + 3).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let completed = Arc::new(Completed::default());
        let operator = Operator::start(cluster, seed + 10, &stop).await?;
        let mut administrators = Vec::new();
        for (table, seed) in TABLES.into_iter().zip(seed + 20..) {
            let started = Administrator::start(cluster, table, seed, &stop, &completed).await?;
            administrators.push(started);
        }
        Ok(Self { load, completed, reader, registers, operator, administrators, audit, stop })
    }

    /// Stops the clients and the cluster, and checks rows, routes and the account of the hook.
    pub(super) async fn conclude(self, cluster: Cluster) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = |error: JoinError| HarnessError::violated(error.to_string());
        for administrator in self.administrators {
            administrator.await.map_err(ended)??;
        }
        println!("{}", self.operator.await.map_err(ended)??);
        check_ended(&cluster).await?;
        let (scans, interrupted) = self.reader.stop_after_faults().await?;
        println!("{scans} scans, {interrupted} interrupted");
        println!("{}", self.registers.stop().await?);
        check_hook(&cluster, &self.audit).await?;
        conclude(cluster, self.load).await?;
        Ok(())
    }
}

/// Checks that the hook has received every version of every region that is live, and knows its files.
async fn check_hook(cluster: &Cluster, audit: &Path) -> Result<()> {
    let mut regions = 0;
    for table in TABLES {
        for route in super::routes(cluster, table).await? {
            let region = route["route_id"].as_u64().unwrap_or_default();
            wait::until("the hook knows the live files", SETTLED_WITHIN, || {
                hook_calls::check_account(cluster, audit, region)
            })
            .await?;
            regions += 1;
        }
    }
    println!("a durable hook knows the files of {regions} regions");
    Ok(())
}
