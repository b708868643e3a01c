//! The loop that lists cursors, starts deliveries and records their moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::CursorState;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::cursor::{Cursor, CursorMove};
use super::cursor_states::{LoadedVersions, LocalCursorStates};
use super::cursor_store::CursorStore;
use super::delivery::{DeliveryOutcome, deliver};
use super::lag_events::record_lags;
use super::lagging::LaggingCursors;
use crate::groups::Groups;
use crate::hooks::NodeHooks;

/// Interval at which deliveries start and moves are recorded: bounds the calls of a node to the meta
/// service.
const TICK: Duration = Duration::from_millis(250);
/// Interval at which cursors are listed without a change on this node: tables are created and dropped.
const LIST_INTERVAL: Duration = Duration::from_secs(2);

/// Groups and hooks that this node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assignment {
    /// Groups that this node leads, each with its term.
    led: BTreeMap<GroupId, u64>,
    /// Durable hooks by name and generation.
    hooks: BTreeSet<(String, u64)>,
}

/// Last list of cursors.
#[derive(Debug)]
struct LastList {
    of: Assignment,
    at: Instant,
    fingerprint: Option<u64>,
}

struct DurableHookDispatcher<S> {
    groups: Arc<Groups>,
    hooks: Arc<NodeHooks>,
    store: S,
    cursors: LocalCursorStates,
    lagging: LaggingCursors,
    deliveries: JoinSet<(Cursor, DeliveryOutcome)>,
    /// Events of cursors that begin to lag: they read manifests.
    lag_events: JoinSet<()>,
    listed: Option<LastList>,
    store_reachable: bool,
}

/// Calls durable hooks for the regions that this node leads, until the node closes.
pub async fn run<S: CursorStore>(
    groups: Arc<Groups>,
    hooks: Arc<NodeHooks>,
    store: S,
    closing: CancellationToken,
) {
    let mut dispatcher = DurableHookDispatcher {
        groups,
        hooks,
        store,
        cursors: LocalCursorStates::default(),
        lagging: LaggingCursors::default(),
        deliveries: JoinSet::new(),
        lag_events: JoinSet::new(),
        listed: None,
        store_reachable: true,
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = dispatcher.run() => {}
    }
}

impl<S: CursorStore> DurableHookDispatcher<S> {
    async fn run(&mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.dispatch().await,
                Some(ended) = self.deliveries.join_next() => {
                    match ended {
                        Ok((cursor, outcome)) => self.handle_delivered(&cursor, outcome),
                        Err(error) => {
                            // The cursor is unknown: all deliveries start again at their cursors.
                            warn!(%error, "delivery task of a durable hook failed");
                            self.cursors.clear();
                            self.listed = None;
                        }
                    }
                }
            }
        }
    }

    /// Records moves, lists cursors and starts the deliveries that are due.
    async fn dispatch(&mut self) {
        let hooks = self.hooks.durable_hooks();
        let led: BTreeMap<GroupId, u64> = self
            .groups
            .all()
            .iter()
            .map(|replica| (replica.group(), replica.leadership()))
            .filter(|(_, leadership)| leadership.is_leader)
            .map(|(group, leadership)| (group, leadership.term))
            .collect();
        if hooks.is_empty() || led.is_empty() {
            self.cursors.clear();
            self.lagging = LaggingCursors::default();
            self.listed = None;
            self.hooks.set_lags(BTreeMap::new());
            return;
        }
        let assignment = Assignment { led, hooks };
        let synced = self.sync_cursors(&assignment).await;
        self.log_store_state(&synced);
        let versions = self.loaded_versions(&assignment.led);
        if synced.is_ok() {
            self.start_due(&versions);
        }
        self.hooks.set_lags(self.cursors.lags(&versions));
        while self.lag_events.try_join_next().is_some() {}
        let begun = self.lagging.update(self.cursors.all(), &versions);
        if !begun.is_empty() {
            let context = self.groups.context();
            self.lag_events.spawn(record_lags(context.env.clone(), context.events.clone(), begun));
        }
    }

    /// Records moves in the store, and lists cursors after a change or an interval. Moves come first:
    /// the list then contains them.
    async fn sync_cursors(&mut self, assignment: &Assignment) -> Result<(), Refusal> {
        let moves = self.cursors.pending_moves();
        if !moves.is_empty() {
            let reply = self.store.advance(moves.clone()).await?;
            self.cursors.record_moved(&moves, reply);
        }
        let last = self.listed.as_ref().filter(|list| list.of == *assignment);
        if last.is_some_and(|list| list.at.elapsed() < LIST_INTERVAL) {
            return Ok(());
        }
        let groups: Vec<GroupId> = assignment.led.keys().copied().collect();
        let known = last.and_then(|list| list.fingerprint);
        let fingerprint = match self.store.list(&groups, known).await? {
            Some(list) => {
                self.cursors.update(list.cursors);
                list.fingerprint
            }
            None => known,
        };
        self.listed = Some(LastList { of: assignment.clone(), at: Instant::now(), fingerprint });
        Ok(())
    }

    fn log_store_state(&mut self, synced: &Result<(), Refusal>) {
        match synced {
            Ok(()) if !self.store_reachable => info!("recording cursors of durable hooks again"),
            Ok(()) => {}
            Err(problem) if self.store_reachable => {
                warn!(%problem, "failed to record cursors of durable hooks; deliveries paused");
            }
            Err(problem) => debug!(%problem, "failed to record cursors of durable hooks"),
        }
        self.store_reachable = synced.is_ok();
    }

    fn loaded_versions(&self, led: &BTreeMap<GroupId, u64>) -> LoadedVersions {
        let replicas = led.keys().filter_map(|group| self.groups.get(*group).ok());
        let mut versions = LoadedVersions::new();
        for replica in replicas {
            for hosted in replica.shared.regions.all() {
                let id: RegionId = hosted.region.id();
                versions.insert(id, hosted.region.stats().manifest_version);
            }
        }
        versions
    }

    fn start_due(&mut self, versions: &LoadedVersions) {
        let hooks = self.hooks.clone();
        let hook_of = |cursor: &Cursor| {
            let hook = hooks.durable(&cursor.key.1, cursor.generation)?;
            (!hook.is_paused()).then_some(hook)
        };
        let is_callable = |cursor: &Cursor| hook_of(cursor).is_some();
        for due in self.cursors.start_due(versions, is_callable, Instant::now()) {
            let Some(hook) = hook_of(&due.cursor) else {
                // The hook was removed or paused since it was found due.
                self.cursors.end(&due.cursor, None, false, Instant::now(), 0);
                continue;
            };
            let env = self.groups.context().env.clone();
            self.deliveries.spawn(async move {
                let outcome = deliver(&env, &due.cursor, due.dropped, &hook).await;
                (due.cursor, outcome)
            });
        }
    }

    fn handle_delivered(&mut self, cursor: &Cursor, outcome: DeliveryOutcome) {
        let (region, hook) = &cursor.key;
        let failed = outcome.error.is_some();
        let problem = outcome.error.as_ref().map(ToString::to_string);
        self.cursors.set_problem(cursor, problem);
        let bits = self.groups.context().env.ids.jitter_bits();
        let wait = self.cursors.end(cursor, outcome.to, failed, Instant::now(), bits);
        if let (Some(problem), Some(wait)) = (outcome.error, wait) {
            warn!(%hook, %region, %problem, ?wait, "delivery to a durable hook failed; retrying");
        }
        if let Some(CursorMove::To(version, CursorState::Lagged)) = outcome.to {
            warn!(
                %hook, %region, %version,
                "undelivered manifest versions were deleted, or the cursor is above the manifest; \
                 bootstrapping the durable hook with a snapshot"
            );
        }
    }
}
