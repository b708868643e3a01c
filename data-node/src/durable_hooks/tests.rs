//! Durable hooks of a node that leads a group alone, with a cursor store in memory and hooks that write
//! lines.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    GroupId, Incarnation, ManifestVersion, NodeId, RegionId, Sequence, TableId,
};
use tidewater_common::refusal::Refusal;
use tidewater_events::testing::CollectingRecorder;
use tidewater_events::{RecordedEvent, is_shared};
use tidewater_hook_kinds::{EventTables, HookAccess};
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{self, CursorAdvance, CursorState, HookCursor, ListedCursor, Reason};
use tidewater_region_engine::Plugins;
use tidewater_region_engine::hooks::HookHome;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::storage::Storage;
use tidewater_rpc::CursorList;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::lag_events::record_lags;
use super::lagging::LagBegin;
use super::*;
use crate::group::entry;
use crate::group::replica::GroupReplica;
use crate::group::testing::{region, write};
use crate::groups::Groups;
use crate::groups::tests::{GROUP, NODE, members, node_over, stop, until};
use crate::hooks::NodeHooks;
use crate::node_events::NodeEvents;
use crate::owner_request::OwnerRequest;

const REGION: RegionId = RegionId(7);
/// Limit for proposals to the log.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(30);

fn stored(region: u64, hook: &str, version: u64, state: CursorState) -> HookCursor {
    HookCursor {
        hook: hook.to_owned(),
        generation: 1,
        region_id: region,
        table_id: 3,
        incarnation: 1,
        group_id: GROUP.get(),
        version,
        state: state.into(),
    }
}

pub(super) fn cursor(region: u64, hook: &str, version: u64, state: CursorState) -> Cursor {
    Cursor::new(stored(region, hook, version, state))
}

pub(super) fn listed(region: u64, hook: &str, version: u64, state: CursorState) -> ListedCursor {
    ListedCursor { cursor: Some(stored(region, hook, version, state)), dropped: false }
}

/// Stores cursors in memory as the meta group does.
#[derive(Debug, Clone, Default)]
struct MemoryCursorStore {
    cursors: Arc<Mutex<BTreeMap<String, HookCursor>>>,
    /// States to which cursors were moved, in order.
    states: Arc<Mutex<Vec<CursorState>>>,
    unavailable: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
    /// Number of lists that were the known ones.
    unchanged: Arc<AtomicU64>,
}

impl MemoryCursorStore {
    fn set(&self, hook: &str, version: u64, state: CursorState) {
        let cursor = stored(REGION.get(), hook, version, state);
        self.cursors.lock().insert(hook.to_owned(), cursor);
    }

    fn version(&self, hook: &str) -> Option<u64> {
        self.cursors.lock().get(hook).map(|cursor| cursor.version)
    }
}

impl CursorStore for MemoryCursorStore {
    async fn list(
        &self,
        groups: &[GroupId],
        known: Option<u64>,
    ) -> Result<Option<CursorList>, Refusal> {
        assert_eq!(groups, [GROUP]);
        let dropped = self.dropped.load(Ordering::SeqCst);
        let cursors = self.cursors.lock();
        let mut hasher = DefaultHasher::new();
        (dropped, cursors.keys().collect::<Vec<_>>()).hash(&mut hasher);
        let fingerprint = Some(hasher.finish());
        if known == fingerprint {
            self.unchanged.fetch_add(1, Ordering::SeqCst);
            return Ok(None);
        }
        let listed = |cursor: &HookCursor| ListedCursor { cursor: Some(cursor.clone()), dropped };
        let cursors = cursors.values().map(listed).collect();
        Ok(Some(CursorList { cursors, fingerprint }))
    }

    async fn advance(&self, advances: Vec<CursorAdvance>) -> Result<Vec<HookCursor>, Refusal> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(Refusal::new(Reason::Unavailable, "no leader"));
        }
        let mut cursors = self.cursors.lock();
        for advance in &advances {
            let Some(cursor) = cursors.get_mut(&advance.hook) else { continue };
            if (cursor.version, cursor.state) != (advance.expected_version, advance.expected_state)
            {
                continue;
            }
            if advance.done {
                cursors.remove(&advance.hook);
                continue;
            }
            cursor.version = advance.version;
            cursor.state = advance.state;
            self.states.lock().push(advance.state());
        }
        Ok(advances.iter().filter_map(|advance| cursors.get(&advance.hook).cloned()).collect())
    }
}

/// A node with one group and one region, and hooks by name that write lines.
struct Fixture {
    dir: tempfile::TempDir,
    storage: Storage,
    groups: Arc<Groups>,
    replica: Arc<GroupReplica>,
    hooks: Arc<NodeHooks>,
    store: MemoryCursorStore,
    writes: u8,
}

impl Fixture {
    async fn new(hooks: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::memory();
        let groups = node_over(dir.path(), storage.clone());
        let replica = groups.start(GROUP).await.unwrap();
        groups.initialize(&replica, members()).await.unwrap();
        until("the group has a leader", async || replica.leadership().is_leader).await;
        let opened = entry::opened(region(REGION.get(), None, None), Sequence(0));
        replica.propose(opened, PROPOSAL_TIMEOUT).await.unwrap().into_result().unwrap();
        let home = HookHome { role: "data", node_id: NODE };
        let access = HookAccess::new(Some(dir.path()), None, false, &[]).unwrap();
        let kinds = tidewater_hook_kinds::builtin(access);
        let node_hooks = Arc::new(NodeHooks::new(kinds, home, Plugins::default()));
        let mut fixture = Self {
            dir,
            storage,
            groups,
            replica,
            hooks: node_hooks,
            store: MemoryCursorStore::default(),
            writes: 0,
        };
        let made = hooks.iter().map(|name| v1::Hook {
            name: (*name).to_owned(),
            kind: "jsonl".to_owned(),
            config: serde_json::json!({ "path": fixture.path(name) }).to_string(),
            generation: 1,
            durable: true,
            ..v1::Hook::default()
        });
        let snapshot = v1::CatalogSnapshot { hooks: made.collect(), ..Default::default() };
        fixture.hooks.follow(&Event::Snapshot(snapshot));
        fixture.flush().await;
        fixture
    }

    fn path(&self, hook: &str) -> PathBuf {
        self.dir.path().join(format!("{hook}.jsonl"))
    }

    /// Writes a row and flushes it.
    async fn flush(&mut self) {
        self.writes += 1;
        // A new producer each time; its first write opens it.
        let opened = self.write(write(self.writes, 1, &[])).await;
        let rows = write(self.writes, 2, &[i64::from(self.writes)]);
        self.write(v1::WriteRequest { opening: opened, ..rows }).await;
        let (reply, flushed) = oneshot::channel();
        self.replica.owner_requests.send(OwnerRequest::Flush(REGION, reply)).await.unwrap();
        flushed.await.unwrap().unwrap();
    }

    /// Proposes a write and returns its sequence.
    async fn write(&self, write: v1::WriteRequest) -> u64 {
        let written =
            self.replica.propose(entry::writes(vec![write]), PROPOSAL_TIMEOUT).await.unwrap();
        written.into_result().unwrap().sequence
    }

    /// Returns the version to which the region has read its manifest.
    fn tail(&self) -> u64 {
        let hosted = self.replica.shared.regions.get(REGION).unwrap();
        hosted.region.stats().manifest_version.get()
    }

    /// Runs the dispatcher until the guard is dropped, which leaves the state of a crash.
    fn start_dispatcher(&self) -> Dispatcher {
        let closing = CancellationToken::new();
        let run = run(self.groups.clone(), self.hooks.clone(), self.store.clone(), closing);
        Dispatcher(tokio::spawn(run))
    }

    /// Waits until the versions committed so far are delivered. Later ones may be as well: compactions run
    /// concurrently.
    async fn caught_up(&self, hook: &str) {
        let tail = self.tail();
        until("all versions are delivered", async || self.store.version(hook) >= Some(tail)).await;
    }

    fn lines(&self, hook: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(hook)).unwrap_or_default();
        // The text after the last line break is incomplete.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn versions(&self, hook: &str) -> Vec<u64> {
        let lines = self.lines(hook);
        lines.iter().map(|line| line["manifest_version"].as_u64().unwrap()).collect()
    }

    async fn stop(self) {
        drop(self.replica);
        stop(self.groups).await;
    }
}

struct Dispatcher(tokio::task::JoinHandle<()>);

impl Dispatcher {
    /// Stops the dispatcher: afterwards nothing is delivered or recorded.
    async fn stop(mut self) {
        self.0.abort();
        assert!((&mut self.0).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the versions without repeats, in order of their first lines.
fn firsts(versions: &[u64]) -> Vec<u64> {
    let mut firsts = Vec::new();
    for version in versions {
        if !firsts.contains(version) {
            firsts.push(*version);
        }
    }
    firsts
}

/// Checks that each version is there once, without a gap, from `first` to at least `last`.
fn assert_complete(versions: &[u64], first: u64, last: u64) {
    let reached = versions.last().copied().unwrap_or(0);
    assert!(reached >= last, "{versions:?} to {last}");
    assert_eq!(versions, (first..=reached).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn unrecorded_versions_are_delivered_again_in_order() {
    let mut fixture = Fixture::new(&["h"]).await;
    fixture.store.set("h", 0, CursorState::Tail);
    let dispatcher = fixture.start_dispatcher();
    for _ in 0..3 {
        fixture.flush().await;
    }
    fixture.caught_up("h").await;
    assert_complete(&fixture.versions("h"), 1, 5);
    assert_eq!(fixture.lines("h")[0]["manifest"], "bookkeeping", "the owner's fence");
    // Delivered, but not recorded: then the node dies.
    fixture.store.unavailable.store(true, Ordering::SeqCst);
    let recorded = fixture.store.version("h").unwrap();
    fixture.flush().await;
    until("it is delivered", async || fixture.versions("h").last() > Some(&recorded)).await;
    dispatcher.stop().await;
    fixture.store.unavailable.store(false, Ordering::SeqCst);
    let _dispatcher = fixture.start_dispatcher();
    fixture.flush().await;
    fixture.caught_up("h").await;
    let delivered = fixture.versions("h");
    let repeats = delivered.iter().filter(|version| **version == recorded + 1).count();
    assert!(repeats >= 2, "{delivered:?}: {recorded} was recorded");
    assert_complete(&firsts(&delivered), 1, recorded + 2);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_continues_while_the_list_is_unchanged() {
    let mut fixture = Fixture::new(&["h", "later"]).await;
    fixture.store.set("h", 0, CursorState::Tail);
    let _dispatcher = fixture.start_dispatcher();
    fixture.caught_up("h").await;
    let unchanged = || fixture.store.unchanged.load(Ordering::SeqCst);
    until("the list is unchanged", async || unchanged() > 0).await;
    fixture.flush().await;
    fixture.caught_up("h").await;
    fixture.store.set("later", 0, CursorState::Tail);
    fixture.caught_up("later").await;
    let seen = fixture.store.unchanged.load(Ordering::SeqCst);
    let unchanged = || fixture.store.unchanged.load(Ordering::SeqCst);
    until("the longer list is unchanged", async || unchanged() > seen).await;
    fixture.flush().await;
    let tail = fixture.tail();
    for hook in ["h", "later"] {
        fixture.caught_up(hook).await;
        assert_complete(&fixture.versions(hook), 1, tail);
    }
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_starts_at_its_configured_position() {
    let mut fixture = Fixture::new(&["now", "start", "from", "gone"]).await;
    fixture.flush().await;
    let tail = fixture.tail();
    fixture.store.set("now", 0, CursorState::Now);
    fixture.store.set("start", 0, CursorState::Start);
    fixture.store.set("from", 1, CursorState::From);
    fixture.store.set("gone", tail + 100, CursorState::From);
    let _dispatcher = fixture.start_dispatcher();
    let state = |hook: &str| fixture.store.cursors.lock().get(hook).map(HookCursor::state);
    until("the missing version is detected", async || state("gone") == Some(CursorState::Gone))
        .await;
    until("now is known", async || state("now") == Some(CursorState::Tail)).await;
    until("a snapshot is delivered", async || state("start") == Some(CursorState::Tail)).await;
    fixture.flush().await;
    for hook in ["now", "start", "from"] {
        fixture.caught_up(hook).await;
    }
    assert!(fixture.versions("now").first() > Some(&tail));
    assert_complete(&fixture.versions("from"), 2, tail + 1);
    let lines = fixture.lines("start");
    assert_eq!(lines[0]["event"], "bootstrap");
    assert_eq!(lines[1]["event"], "manifest_updated");
    let begun = lines[0]["manifest_version"].as_u64().unwrap();
    assert!(begun >= tail);
    assert!(!lines[0]["files"].as_array().unwrap().is_empty());
    assert_complete(&fixture.versions("start"), begun, tail + 1);
    assert!(fixture.lines("gone").is_empty());
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_one_event_of_all_leaders() {
    let mut fixture = Fixture::new(&[]).await;
    fixture.flush().await;
    let dir = RegionDir { table_id: TableId(3), region_id: REGION, incarnation: Incarnation(1) };
    let lag = |version: Option<u64>| LagBegin {
        dir,
        hook: "h".to_owned(),
        generation: 1,
        version: version.map(ManifestVersion),
        pending: 9,
        cause: None,
    };
    let recorder = Arc::new(CollectingRecorder::default());
    for node in [101, 102] {
        let tables = EventTables::default();
        let clock = Arc::new(SystemClock);
        let node = NodeId(node);
        let events = NodeEvents::new(node, recorder.clone(), tables, Duration::ZERO, clock);
        // The last one does not exist.
        let lags = [Some(2), Some(3), None, Some(999)].map(lag).to_vec();
        record_lags(fixture.groups.context().env.clone(), events, lags).await;
    }
    let events = recorder.events();
    let (first, second) = events.split_at(4);
    assert_eq!(first[..2], second[..2]);
    assert_ne!(first[0].id, first[1].id);
    let shared = |events: &[RecordedEvent]| {
        events.iter().map(|event| is_shared(event.id)).collect::<Vec<_>>()
    };
    assert_eq!(shared(first), [true, true, false, false]);
    assert_eq!(shared(second), shared(first));
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_hook_restarts_with_a_snapshot() {
    let mut fixture = Fixture::new(&["h"]).await;
    // Beyond the first checkpoint.
    while fixture.tail() < 18 {
        fixture.flush().await;
    }
    fixture.store.set("h", 1, CursorState::Tail);
    let dir = RegionDir { table_id: TableId(3), region_id: REGION, incarnation: Incarnation(1) };
    fixture.storage.delete(&dir.delta(ManifestVersion(2))).await.unwrap();
    let _dispatcher = fixture.start_dispatcher();
    until("it continues", async || fixture.store.states.lock().contains(&CursorState::Tail)).await;
    assert_eq!(fixture.store.states.lock()[..2], [CursorState::Lagged, CursorState::Tail]);
    fixture.flush().await;
    fixture.caught_up("h").await;
    let lines = fixture.lines("h");
    assert_eq!(lines[0]["event"], "bootstrap");
    let begun = lines[0]["manifest_version"].as_u64().unwrap();
    assert!(begun >= 18);
    assert_complete(&fixture.versions("h"), begun, 19);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_above_its_manifest_restarts_with_a_snapshot() {
    let mut fixture = Fixture::new(&["h"]).await;
    let tail = fixture.tail();
    fixture.store.set("h", 1_000_000_000, CursorState::Tail);
    let _dispatcher = fixture.start_dispatcher();
    until("it continues", async || fixture.store.states.lock().contains(&CursorState::Tail)).await;
    assert_eq!(fixture.store.states.lock()[..2], [CursorState::Lagged, CursorState::Tail]);
    fixture.flush().await;
    fixture.caught_up("h").await;
    let lines = fixture.lines("h");
    assert_eq!(lines[0]["event"], "bootstrap");
    assert_complete(&fixture.versions("h"), tail, tail + 1);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_hook_delays_no_other_and_catches_up() {
    let mut fixture = Fixture::new(&["missing/bad", "good"]).await;
    fixture.store.set("missing/bad", 0, CursorState::Tail);
    fixture.store.set("good", 0, CursorState::Tail);
    let _dispatcher = fixture.start_dispatcher();
    fixture.flush().await;
    fixture.caught_up("good").await;
    let failures = || {
        let reports = fixture.hooks.reports();
        reports.iter().find(|hook| hook.name == "missing/bad").map_or(0, |hook| hook.failures)
    };
    until("it fails more than once", async || failures() >= 2).await;
    assert_eq!(fixture.store.version("missing/bad"), Some(0));
    let lag = |name: &str| {
        let reports = fixture.hooks.reports();
        reports.iter().find(|hook| hook.name == name).map(|hook| hook.backlog)
    };
    until("its lag shows", async || lag("missing/bad") >= Some(4)).await;
    until("the other has none", async || lag("good") == Some(0)).await;
    std::fs::create_dir(fixture.dir.path().join("missing")).unwrap();
    fixture.caught_up("missing/bad").await;
    assert_complete(&fixture.versions("missing/bad"), 1, 4);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_region_is_delivered_up_to_its_removal() {
    let fixture = Fixture::new(&["h"]).await;
    fixture.store.set("h", 0, CursorState::Tail);
    let (reply, removed) = oneshot::channel();
    fixture.replica.owner_requests.send(OwnerRequest::Remove(REGION, reply)).await.unwrap();
    removed.await.unwrap().unwrap();
    fixture
        .replica
        .propose(entry::dropped(REGION), PROPOSAL_TIMEOUT)
        .await
        .unwrap()
        .into_result()
        .unwrap();
    assert!(fixture.replica.shared.regions.get(REGION).is_none());
    let _dispatcher = fixture.start_dispatcher();
    until("the cursor is removed", async || fixture.store.version("h").is_none()).await;
    let lines = fixture.lines("h");
    let last = lines.last().unwrap();
    assert_eq!(last["actions"], serde_json::json!([{ "remove": {} }]));
    assert_eq!(last["manifest"], "bookkeeping");
    assert_complete(&fixture.versions("h"), 1, 4);
    // A region that was never opened has no removal: its cursor is removed with its table.
    fixture.store.set("h", 0, CursorState::Tail);
    fixture.store.cursors.lock().get_mut("h").unwrap().region_id = 99;
    fixture.store.dropped.store(true, Ordering::SeqCst);
    until("the cursor is removed", async || fixture.store.version("h").is_none()).await;
    fixture.stop().await;
}
