//! Random splits, merges, moves, loads, truncations, alters and clones while nodes are killed and frozen: no acknowledged
//! row is lost, no deleted one returns, and each change ends once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_client::{Client, ClientError};
use tidewater_cluster_tests::batches::{BATCH_TABLE, Operator};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::failures::is_expected;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::registers::{REGISTER_TABLE, Registers};
use tidewater_cluster_tests::workload::{LoadOptions, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{AbandonCause, ProcedureInfo, ProcedureState};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::row_key;
use crate::hook_calls;
use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude, keep_routes, setting, wait_for_level};

/// Writers of registers, and readers.
const WRITERS: i64 = 4;
/// Tables whose routes are changed.
const TABLES: [&str; 3] = [LOG_TABLE, REGISTER_TABLE, BATCH_TABLE];
/// Procedures that a meta leader lists, at most.
const LISTED: u32 = 1_000;
/// Most routes of a table.
const MAX_ROUTES: usize = 40;
/// Data groups of the cluster.
const GROUPS: u64 = 3;
/// Fewest splits, merges, and moves that are completed, however slow the machine is.
const MIN_CHANGES: usize = 2;
/// Time for those, after the time of the faults.
const CHANGE_WITHIN: Duration = Duration::from_secs(120);

fn failed(error: &ClientError) -> HarnessError {
    HarnessError::violated(format!("change of a route: {error}"))
}

/// Splits, merges and moves routes until the test stops it.
struct Administrator {
    client: Client,
    table: &'static str,
    random: StdRng,
    completed: Arc<Completed>,
}

/// Change of a route.
#[derive(Debug, Clone, Copy)]
enum Change {
    Split,
    /// Merge with the next route.
    Merge(RegionId),
    /// Move of this route to a group.
    Move(RegionId, GroupId),
}

/// Numbers of changes that were completed.
#[derive(Debug, Default)]
struct Completed {
    splits: AtomicUsize,
    merges: AtomicUsize,
    moves: AtomicUsize,
}

impl Completed {
    fn of(&self, change: Change) -> &AtomicUsize {
        match change {
            Change::Split => &self.splits,
            Change::Merge(_) => &self.merges,
            Change::Move(..) => &self.moves,
        }
    }

    /// Returns whether splits, merges, and moves are yet too few.
    fn lacking(&self) -> [bool; 3] {
        let all = [&self.splits, &self.merges, &self.moves];
        all.map(|of| of.load(Ordering::SeqCst) < MIN_CHANGES)
    }
}

impl Administrator {
    async fn start(
        cluster: &Cluster,
        table: &'static str,
        seed: u64,
        stop: &Arc<AtomicBool>,
        completed: &Arc<Completed>,
    ) -> Result<JoinHandle<Result<()>>> {
        let client = Client::connect(options(cluster)).await.map_err(|error| failed(&error))?;
        let random = StdRng::seed_from_u64(seed);
        let completed = completed.clone();
        let mut administrator = Self { client, table, random, completed };
        let stop = stop.clone();
        Ok(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                administrator.change().await?;
                // The operator of the batches has to find its table unlocked.
                let pause_ms = if table == BATCH_TABLE { 6_000 } else { 300 };
                sleep(Duration::from_millis(administrator.random.random_range(0..pause_ms))).await;
            }
            Ok(())
        }))
    }

    /// Splits the route of a random row, moves it, or merges two neighbours, and cancels one of four changes. If all
    /// neighbours are in different groups, one is moved. Changes of which there were too few come first.
    async fn change(&mut self) -> Result<()> {
        let (first, second) = match self.table {
            LOG_TABLE => (4, 2_000),
            REGISTER_TABLE => (4, 40),
            _ => (40, 300),
        };
        let key = row_key(self.random.random_range(1..=first), self.random.random_range(0..second));
        let routes = self.routes().await?;
        let Some(at) = routes.iter().position(|(_, _, range)| range.contains(&key)) else {
            return Ok(());
        };
        let (route, group, _) = routes[at];
        let [no_splits, no_merges, no_moves] = self.completed.lacking();
        let splits = no_splits && routes.len() < MAX_ROUTES;
        let merges =
            !splits && (no_merges || routes.len() >= MAX_ROUTES || self.random.random_bool(0.4));
        let moves = !splits && (no_moves || self.random.random_bool(0.3));
        let other = GroupId(group.get() % GROUPS + 1);
        let pairs: Vec<_> = routes.windows(2).filter(|pair| pair[0].1 == pair[1].1).collect();
        let pair = pairs.get(self.random.random_range(0..pairs.len().max(1)));
        let (route, change) = match (pair.filter(|_| merges), routes.get(at + 1)) {
            (Some(pair), _) => (pair[0].0, Change::Merge(pair[1].0)),
            (None, Some((next, ..))) if merges => (route, Change::Move(*next, group)),
            (None, _) if moves => (route, Change::Move(route, other)),
            (None, _) => (route, Change::Split),
        };
        let cancel = self.random.random_range(0..4) == 0;
        let delay = Duration::from_millis(self.random.random_range(0..300));
        let begun = Instant::now();
        let changed = async {
            match change {
                Change::Split => self.client.split_route(route, key.into()).await.map(drop),
                Change::Merge(next) => self.client.merge_routes(route, next).await.map(drop),
                Change::Move(route, to) => self.client.move_route(route, to).await,
            }
        };
        let cancelled = async {
            if cancel {
                sleep(delay).await;
                self.cancel().await?;
            }
            Ok(())
        };
        let (changed, cancelled) = tokio::join!(changed, cancelled);
        cancelled?;
        match changed {
            Ok(()) => {
                println!("{change:?} of route {route}, {:.1?}", begun.elapsed());
                self.completed.of(change).fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(error) if is_expected(&error) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Returns the routes of the table, their groups and their ranges, in key order.
    async fn routes(&self) -> Result<Vec<(RegionId, GroupId, KeyRange)>> {
        let table = self.client.table(self.table).await.map_err(|error| failed(&error))?.id;
        let catalog = self.client.catalog();
        let of_table = catalog.routes().filter(|route| route.table == table);
        let mut routes: Vec<_> =
            of_table.map(|route| (route.region, route.group, route.range.clone())).collect();
        routes.sort_by(|(_, _, a), (_, _, b)| a.start.cmp(&b.start));
        Ok(routes)
    }

    async fn cancel(&self) -> Result<()> {
        let running = self.client.procedures(1).await.map_err(|error| failed(&error))?;
        if let Some(change) = running.iter().find(|of| of.abandonable && is_change(of)) {
            // It may have ended since.
            let _ = self.client.cancel_procedure(&change.procedure_id).await;
        }
        Ok(())
    }
}

/// Injects one fault, and repairs it. `spared`: position of a data node that has none.
pub(super) async fn inject(
    cluster: &mut Cluster,
    random: &mut StdRng,
    spared: Option<usize>,
) -> Result<()> {
    let time = Duration::from_millis(random.random_range(0..2_500));
    let (leader, _) = cluster.meta_leader().await?;
    let running = (0..cluster.data.len()).filter(|at| cluster.data[*at].is_running());
    let running: Vec<usize> = running.filter(|at| Some(*at) != spared).collect();
    let data = running[random.random_range(0..running.len())];
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
            for table in TABLES {
                // Regions may be replaced between.
                let flushed = cluster.run(&["region", "flush", "--table", table]).await?;
                let compacted = cluster.run(&["region", "compact", "--table", table]).await?;
                for output in [flushed, compacted] {
                    println!("{table}: {:?} {}", output.status, output.stderr.trim());
                }
            }
        }
    }
    cluster.wait_until_healthy().await
}

fn is_change(procedure: &ProcedureInfo) -> bool {
    ["split", "merge", "move"].contains(&procedure.kind.as_str())
}

/// Waits until no split, merge or move runs, and checks that the routes are those of the completed ones.
async fn check_ended(cluster: &Cluster) -> Result<()> {
    let client = Client::connect(options(cluster)).await.map_err(|error| failed(&error))?;
    let ended = wait::until("every change of a route has ended", SETTLED_WITHIN, || async {
        let procedures = client.procedures(LISTED).await.map_err(|error| error.to_string())?;
        if procedures.len() >= LISTED as usize {
            return Err("too many procedures to account for: use a shorter time".to_owned());
        }
        let changes: Vec<_> = procedures.into_iter().filter(is_change).collect();
        let running: Vec<_> = changes.iter().filter(|of| of.ended_ms == 0).collect();
        if running.is_empty() { Ok(changes) } else { Err(format!("{running:?}")) }
    })
    .await?;
    let completed = |kind: &str| {
        let completed = |of: &&ProcedureInfo| of.state() == ProcedureState::Completed;
        ended.iter().filter(completed).filter(|of| of.kind == kind).count()
    };
    let [splits, merges, moves] = ["split", "merge", "move"].map(completed);
    let of_cause = |cause| ended.iter().filter(|of| of.cause() == cause).count();
    // A group keeps fenced regions by itself.
    let restored = of_cause(AbandonCause::Superseded);
    let cancelled = of_cause(AbandonCause::Operator);
    let mut routes = 0;
    for table in TABLES {
        routes += super::routes(cluster, table).await?.len();
    }
    println!(
        "{splits} splits, {merges} merges and {moves} moves completed, {cancelled} changes cancelled, {restored} taken \
         back, {routes} routes"
    );
    let is_accounted = splits + merges + moves + cancelled + restored == ended.len();
    if !is_accounted || routes + merges != splits + TABLES.len() {
        return Err(HarnessError::violated(format!("{routes} routes after {ended:?}")));
    }
    Ok(())
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

// C3, C5, H4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_during_changes_of_routes_lose_no_write() -> Result<()> {
    let time = Duration::from_secs(setting("TIDEWATER_SPLIT_SECONDS", 15));
    let seed: u64 = setting("TIDEWATER_SPLIT_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_SPLIT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = ClusterPlan::default().store(Store::S3).nodes(3, 3, 1).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    let audit = hook_calls::add(&cluster, "audit", &[]).await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    let registers = Registers::start(&cluster, WRITERS, seed + 3).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let completed = Arc::new(Completed::default());
    let operator = Operator::start(&cluster, seed + 10, &stop).await?;
    let mut administrators = Vec::new();
    for (table, seed) in TABLES.into_iter().zip(seed + 20..) {
        let started = Administrator::start(&cluster, table, seed, &stop, &completed).await?;
        administrators.push(started);
    }
    let end = Instant::now() + time;
    while Instant::now() < end || completed.lacking().contains(&true) {
        if Instant::now() > end + CHANGE_WITHIN {
            return Err(HarnessError::violated("too few changes were completed"));
        }
        load.progress(40).await?;
        inject(&mut cluster, &mut random, None).await?;
    }
    stop.store(true, Ordering::SeqCst);
    let ended = |error: tokio::task::JoinError| HarnessError::violated(error.to_string());
    for administrator in administrators {
        administrator.await.map_err(ended)??;
    }
    println!("{}", operator.await.map_err(ended)??);
    check_ended(&cluster).await?;
    let (scans, interrupted) = reader.stop_after_faults().await?;
    println!("{scans} scans, {interrupted} interrupted");
    println!("{}", registers.stop().await?);
    check_hook(&cluster, &audit).await?;
    conclude(cluster, load).await?;
    Ok(())
}
