//! Administrators that split, merge and move routes at random while faults happen, and a check that each change has
//! ended once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use tidewater_client::{Client, ClientError};
use tidewater_cluster_tests::batches::BATCH_TABLE;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::failures::is_expected;
use tidewater_cluster_tests::registers::REGISTER_TABLE;
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{AbandonCause, GroupState, ProcedureInfo, ProcedureState};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::row_key;
use crate::support::SETTLED_WITHIN;

/// Tables whose routes are changed.
pub(super) const TABLES: [&str; 3] = [LOG_TABLE, REGISTER_TABLE, BATCH_TABLE];
/// Procedures that a meta leader lists, at most.
const LISTED: u32 = 1_000;
/// Most routes of a table.
const MAX_ROUTES: usize = 40;
/// Time in which a client receives a change of the catalog. Short: a refusal is excused by any change within it.
const RECEIVED_WITHIN: Duration = Duration::from_secs(1);
/// Fewest splits, merges, and moves that are completed, however slow the machine is.
const MIN_CHANGES: usize = 2;

fn failed(error: &ClientError) -> HarnessError {
    HarnessError::violated(format!("change of a route: {error}"))
}

/// Splits, merges and moves routes until the test stops it.
pub(super) struct Administrator {
    client: Client,
    table: &'static str,
    random: StdRng,
    completed: Arc<Completed>,
}

/// A route, its group and its range.
type TableRoute = (RegionId, GroupId, KeyRange);

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
pub(super) struct Completed {
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
    pub(super) fn lacking(&self) -> [bool; 3] {
        let all = [&self.splits, &self.merges, &self.moves];
        all.map(|of| of.load(Ordering::SeqCst) < MIN_CHANGES)
    }
}

impl Administrator {
    pub(super) async fn start(
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
        let groups = self.groups();
        let others = groups.iter().copied().filter(|other| *other != group);
        let Some(other) = others.choose(&mut self.random) else { return Ok(()) };
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
            // The balance may have moved the route since, or begun to retire the group.
            Err(error) if self.sees_another_catalog(&routes, &groups).await? => {
                println!("{change:?} of route {route}, on an older catalog: {error}");
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// Waits until the catalog has other routes or groups, and returns whether it has.
    async fn sees_another_catalog(
        &self,
        routes: &[TableRoute],
        groups: &[GroupId],
    ) -> Result<bool> {
        let until = Instant::now() + RECEIVED_WITHIN;
        while Instant::now() < until {
            if self.routes().await? != routes || self.groups() != groups {
                return Ok(true);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(false)
    }

    /// Returns the groups that take routes.
    fn groups(&self) -> Vec<GroupId> {
        let active = i32::from(GroupState::Active);
        let catalog = self.client.catalog();
        catalog
            .groups()
            .filter(|group| group.state == active && !group.retiring)
            .map(|group| GroupId(group.group_id))
            .collect()
    }

    /// Returns the routes of the table, their groups and their ranges, in key order.
    async fn routes(&self) -> Result<Vec<TableRoute>> {
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

fn is_change(procedure: &ProcedureInfo) -> bool {
    ["split", "merge", "move"].contains(&procedure.kind.as_str())
}

/// Waits until no split, merge or move of the tables' routes runs, and checks that the routes are those of the completed ones.
pub(super) async fn check_ended(cluster: &Cluster) -> Result<()> {
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
    // A group keeps fenced regions by itself, and a step without a leader ends at its deadline.
    let restored = of_cause(AbandonCause::Superseded) + of_cause(AbandonCause::Deadline);
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
