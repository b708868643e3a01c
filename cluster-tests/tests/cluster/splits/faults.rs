//! Random splits while nodes are killed and frozen: no acknowledged row is lost, and each split ends once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_client::{Client, ClientError};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::{LoadOptions, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::{AbandonCause, ProcedureState, Reason};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::row_key;
use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude, setting, wait_for_level};

/// Most routes of the table.
const MAX_ROUTES: usize = 40;
/// Fewest splits that are completed, however slow the machine is.
const MIN_SPLITS: usize = 3;
/// Time for those, after the time of the faults.
const SPLIT_WITHIN: Duration = Duration::from_secs(120);

fn failed(error: &ClientError) -> HarnessError {
    HarnessError::violated(format!("split: {error}"))
}

/// Splits routes until the test stops it.
struct Splitter {
    client: Client,
    random: StdRng,
    completed: Arc<AtomicUsize>,
}

impl Splitter {
    async fn start(
        cluster: &Cluster,
        seed: u64,
        stop: &Arc<AtomicBool>,
        completed: &Arc<AtomicUsize>,
    ) -> Result<JoinHandle<Result<()>>> {
        let client = Client::connect(options(cluster)).await.map_err(|error| failed(&error))?;
        let random = StdRng::seed_from_u64(seed);
        let mut splitter = Self { client, random, completed: completed.clone() };
        let stop = stop.clone();
        Ok(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                splitter.split().await?;
                sleep(Duration::from_millis(splitter.random.random_range(0..300))).await;
            }
            Ok(())
        }))
    }

    /// Splits the route of a random row, and cancels one of four splits.
    async fn split(&mut self) -> Result<()> {
        let key = row_key(self.random.random_range(1..=4), self.random.random_range(0..2_000));
        let Some(route) = self.route_of(&key).await? else { return Ok(()) };
        let cancel = self.random.random_range(0..4) == 0;
        let delay = Duration::from_millis(self.random.random_range(0..300));
        let begun = Instant::now();
        let split = self.client.split_route(route, key.into());
        let cancelled = async {
            if cancel {
                sleep(delay).await;
                self.cancel().await?;
            }
            Ok(())
        };
        let (split, cancelled) = tokio::join!(split, cancelled);
        cancelled?;
        match split {
            Ok(_) => {
                println!("split of route {route}, {:.1?}", begun.elapsed());
                self.completed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(error) if is_expected(&error) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn route_of(&self, key: &[u8]) -> Result<Option<RegionId>> {
        let table = self.client.table(LOG_TABLE).await.map_err(|error| failed(&error))?.id;
        let catalog = self.client.catalog();
        let of_table: Vec<_> = catalog.routes().filter(|route| route.table == table).collect();
        if of_table.len() >= MAX_ROUTES {
            return Ok(None);
        }
        Ok(of_table.iter().find(|route| route.range.contains(key)).map(|route| route.region))
    }

    async fn cancel(&self) -> Result<()> {
        let running = self.client.procedures(1).await.map_err(|error| failed(&error))?;
        if let Some(split) = running.iter().find(|of| of.abandonable && of.kind == "split") {
            // It may have ended since.
            let _ = self.client.cancel_procedure(&split.procedure_id).await;
        }
        Ok(())
    }
}

/// Returns whether a split may end with this error when nodes fail, and others split and cancel.
fn is_expected(error: &ClientError) -> bool {
    let reason = error.refusal().map(|refusal| refusal.reason);
    error.maybe_done()
        || matches!(
            error,
            ClientError::RetriesExhausted { .. }
                | ClientError::NoMetaReachable { .. }
                | ClientError::TimedOut { .. }
        )
        || matches!(
            reason,
            Some(
                Reason::TableBusy
                    | Reason::RouteBusy
                    | Reason::RegionNotFound
                    | Reason::KeyOutsideRegion
                    | Reason::KeyOnBoundary
                    | Reason::ProcedureCancelled
            )
        )
}

/// Injects one fault, and repairs it.
async fn inject(cluster: &mut Cluster, random: &mut StdRng) -> Result<()> {
    let time = Duration::from_millis(random.random_range(0..2_500));
    let (leader, _) = cluster.meta_leader().await?;
    let data = random.random_range(0..cluster.data.len());
    let fault = random.random_range(0..6);
    println!("fault {fault} of data node {data} or meta node {leader}, {time:?}");
    match fault {
        0 | 1 => {
            cluster.data[data].kill().await?;
            sleep(time).await;
            cluster.data[data].start().await?;
        }
        2 => {
            cluster.meta[leader].kill().await?;
            sleep(time).await;
            cluster.meta[leader].start().await?;
        }
        3 | 4 => {
            let node = if fault == 3 { &cluster.data[data] } else { &cluster.meta[leader] };
            node.signal(Signal::Stop).await?;
            sleep(time).await;
            node.signal(Signal::Continue).await?;
        }
        _ => {
            cluster.flush(LOG_TABLE).await?.ok()?;
            let compact = ["region", "compact", "--table", LOG_TABLE];
            let compacted = cluster.run(&compact).await?;
            println!("compaction: status {:?}", compacted.status);
        }
    }
    cluster.wait_until_healthy().await
}

/// Waits until no split runs, and checks that the routes are those of the completed ones.
async fn check_ended(cluster: &Cluster) -> Result<()> {
    let client = Client::connect(options(cluster)).await.map_err(|error| failed(&error))?;
    let ended = wait::until("every split has ended", SETTLED_WITHIN, || async {
        let procedures = client.procedures(1_000).await.map_err(|error| error.to_string())?;
        let splits: Vec<_> = procedures.into_iter().filter(|of| of.kind == "split").collect();
        let running: Vec<_> = splits.iter().filter(|of| of.ended_ms == 0).collect();
        if running.is_empty() { Ok(splits) } else { Err(format!("{running:?}")) }
    })
    .await?;
    let completed = ended.iter().filter(|of| of.state() == ProcedureState::Completed).count();
    let cancelled = ended.iter().filter(|of| of.cause() == AbandonCause::Operator).count();
    let routes = super::routes(cluster).await?.len();
    println!("{completed} splits completed, {cancelled} cancelled, {routes} routes");
    if completed + cancelled != ended.len() || routes != completed + 1 || completed == 0 {
        return Err(HarnessError::violated(format!("{routes} routes after {ended:?}")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_during_splits_lose_no_write() -> Result<()> {
    let time = Duration::from_secs(setting("TIDEWATER_SPLIT_SECONDS", 15));
    let seed: u64 = setting("TIDEWATER_SPLIT_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_SPLIT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = ClusterPlan::default().store(Store::S3).nodes(3, 3, 1).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let completed = Arc::new(AtomicUsize::new(0));
    let first = Splitter::start(&cluster, seed + 1, &stop, &completed).await?;
    let second = Splitter::start(&cluster, seed + 2, &stop, &completed).await?;
    let end = Instant::now() + time;
    while Instant::now() < end || completed.load(Ordering::SeqCst) < MIN_SPLITS {
        if Instant::now() > end + SPLIT_WITHIN {
            return Err(HarnessError::violated("too few splits were completed"));
        }
        load.progress(40).await?;
        inject(&mut cluster, &mut random).await?;
    }
    stop.store(true, Ordering::SeqCst);
    for splitter in [first, second] {
        splitter.await.map_err(|error| HarnessError::violated(error.to_string()))??;
    }
    check_ended(&cluster).await?;
    let scans = reader.stop().await?;
    println!("{scans} scans");
    conclude(cluster, load).await?;
    Ok(())
}
