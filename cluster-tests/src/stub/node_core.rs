//! State of a stub node that its tasks and services share: heartbeats, catalog watch, admission of calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::clock::{Clock, SystemClock};
use tidewater_common::feature_level::Release;
use tidewater_common::header::check_header;
use tidewater_common::ids::{ClusterId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{
    CallHeader, HeartbeatRequest, Hook, HookReport, HookState, NodeRole, Reason,
};
use tidewater_rpc::MetaLink;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::counters::StubCounters;
use super::world::StubWorld;

/// Interval of heartbeats, as of a data node.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest wait of a call for the revision that it names, as of a data node.
const REVISION_WITHIN: Duration = Duration::from_secs(3);

/// Condition of a stub node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It sends heartbeats and answers calls.
    Running,
    /// It accepts connections and calls, and neither answers nor sends anything.
    Frozen,
    /// It has no connections and accepts none.
    Dead,
}

/// State of a node that its tasks and services share.
#[derive(Debug)]
pub(super) struct NodeCore {
    pub(super) world: Arc<StubWorld>,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) link: MetaLink,
    pub(super) address: SocketAddr,
    condition: watch::Sender<Condition>,
    revision: watch::Sender<u64>,
    /// Time of the last heartbeat that the meta service accepted.
    accepted: Mutex<Option<Instant>>,
    /// Time of the last event of the catalog watch.
    event: Mutex<Option<Instant>>,
    hooks: Mutex<BTreeMap<String, Hook>>,
}

impl NodeCore {
    /// Creates the state of a node that does not run yet.
    pub(super) fn new(
        world: Arc<StubWorld>,
        (cluster, node): (ClusterId, NodeId),
        link: MetaLink,
        address: SocketAddr,
    ) -> Self {
        Self {
            world,
            cluster,
            node,
            link,
            address,
            condition: watch::Sender::new(Condition::Dead),
            revision: watch::Sender::new(0),
            accepted: Mutex::default(),
            event: Mutex::default(),
            hooks: Mutex::default(),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    /// Revision of the catalog that the node has received last; 0: none since its start.
    pub(super) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Forgets the catalog, as a node that starts.
    pub(super) fn forget_catalog(&self) {
        self.revision.send_replace(0);
    }

    /// Returns whether the meta service has accepted a heartbeat after a time, and the catalog watch has had
    /// an event since then.
    pub(super) fn is_served(&self, since: Instant) -> bool {
        let is_later = |at: &Mutex<Option<Instant>>| at.lock().is_some_and(|at| at > since);
        is_later(&self.accepted) && is_later(&self.event)
    }

    pub(super) fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
        let running = condition == Condition::Running;
        self.world.set_running(self.node, &self.address.to_string(), running);
    }

    /// Polls a task while the node runs.
    pub(super) async fn while_running(&self, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        let mut condition = self.condition.subscribe();
        loop {
            let runs = condition.wait_for(|now| *now == Condition::Running).await.is_ok();
            if !runs {
                return;
            }
            tokio::select! {
                () = &mut work => return,
                _ = condition.wait_for(|now| *now != Condition::Running) => {}
            }
        }
    }

    pub(super) async fn send_heartbeats(&self) {
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.link.heartbeat(&self.heartbeat()).await {
                Ok(_) => {
                    *self.accepted.lock() = Some(Instant::now());
                    StubCounters::add(&self.world.counters.heartbeats);
                }
                Err(refusal) if refusal.reason == Reason::NodeRemoved => return,
                Err(_) => StubCounters::add(&self.world.counters.failed_heartbeats),
            }
        }
    }

    fn heartbeat(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            cluster_id: self.cluster.to_string(),
            node_id: self.node.get(),
            role: NodeRole::Data.into(),
            address: self.address.to_string(),
            groups: self.world.reports(self.node),
            problems: Vec::new(),
            conditions: Vec::new(),
            hooks: self.hooks.lock().values().map(hook_report).collect(),
            compactor: None,
            clock_ms: SystemClock.now_ms(),
            release: Some((&Release::own()).into()),
            ..HeartbeatRequest::default()
        }
    }

    pub(super) async fn watch_catalog(&self) {
        let follow =
            self.link.follow_catalog(self.cluster, &self.world.book, |event| self.record(event));
        follow.await;
    }

    fn record(&self, event: &Event) {
        *self.event.lock() = Some(Instant::now());
        match event {
            Event::Snapshot(snapshot) => {
                StubCounters::add(&self.world.counters.snapshots);
                let hooks = snapshot.hooks.iter().cloned();
                *self.hooks.lock() = hooks.map(|hook| (hook.name.clone(), hook)).collect();
                self.revision.send_replace(snapshot.revision);
            }
            Event::Delta(delta) => {
                StubCounters::add(&self.world.counters.deltas);
                if !delta.hook_deletes.is_empty() || !delta.hook_upserts.is_empty() {
                    let mut hooks = self.hooks.lock();
                    hooks.retain(|name, _| !delta.hook_deletes.contains(name));
                    let upserts = delta.hook_upserts.iter().cloned();
                    hooks.extend(upserts.map(|hook| (hook.name.clone(), hook)));
                }
                self.revision.send_replace(delta.revision);
            }
            Event::CurrentRevision(_) => {}
        }
    }

    /// Returns whether the catalog has durable hooks.
    pub(super) fn has_durable_hooks(&self) -> bool {
        self.hooks.lock().values().any(|hook| hook.durable)
    }

    /// Waits until the node runs, and for the delay of the world.
    pub(super) async fn ready(&self) {
        let mut condition = self.condition.subscribe();
        if condition.wait_for(|now| *now == Condition::Running).await.is_err() {
            std::future::pending::<()>().await;
        }
        let delay = self.world.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Admits a call of the meta leader: it must name this node, and waits for the revision on which it was
    /// decided.
    pub(super) async fn admit(&self, header: Option<&CallHeader>) -> Result<(), Refusal> {
        StubCounters::add(&self.world.counters.control_calls);
        self.ready().await;
        check_header(self.cluster, self.node, header)?;
        let needed = header.map_or(0, |header| header.catalog_revision).max(1);
        let mut known = self.revision.subscribe();
        let reached = known.wait_for(|known| *known >= needed);
        if matches!(tokio::time::timeout(REVISION_WITHIN, reached).await, Ok(Ok(_))) {
            return Ok(());
        }
        StubCounters::add(&self.world.counters.calls_ahead);
        let text = format!("node {} has yet to receive revision {needed}", self.node);
        let retry_after = Duration::from_millis(500);
        Err(Refusal::new(Reason::CatalogBehind, text).retry_after(retry_after))
    }
}

fn hook_report(hook: &Hook) -> HookReport {
    let state = if hook.paused { HookState::Paused } else { HookState::Active };
    HookReport {
        name: hook.name.clone(),
        generation: hook.generation,
        state: state.into(),
        ..HookReport::default()
    }
}
