//! A node that leads a group alone, a book in memory, and hooks that write lines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tidewater_common::ids::{GroupId, Incarnation, ManifestVersion, RegionId, Sequence, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{self, CursorAdvance, CursorState, HookCursor, ListedCursor, Reason};
use tidewater_region_engine::Plugins;
use tidewater_region_engine::hooks::HookHome;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::storage::Storage;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::*;
use crate::group::entry;
use crate::group::replica::GroupReplica;
use crate::group::testing::{region, write};
use crate::groups::Groups;
use crate::groups::tests::{GROUP, NODE, members, node_over, stop, until};
use crate::hooks::NodeHooks;
use crate::leadership::FlushRequest;

const REGION: RegionId = RegionId(7);
const LIMIT: Duration = Duration::from_secs(30);

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

/// Keeps cursors as the meta group does.
#[derive(Debug, Clone, Default)]
struct Book {
    cursors: Arc<Mutex<BTreeMap<String, HookCursor>>>,
    states: Arc<Mutex<Vec<CursorState>>>,
    deaf: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
}

impl Book {
    fn set(&self, hook: &str, version: u64, state: CursorState) {
        let cursor = stored(REGION.get(), hook, version, state);
        self.cursors.lock().insert(hook.to_owned(), cursor);
    }

    fn version(&self, hook: &str) -> Option<u64> {
        self.cursors.lock().get(hook).map(|cursor| cursor.version)
    }
}

impl CursorBook for Book {
    async fn list(&self, groups: &[GroupId]) -> Result<Vec<ListedCursor>, Refusal> {
        assert_eq!(groups, [GROUP]);
        let dropped = self.dropped.load(Ordering::SeqCst);
        let cursors = self.cursors.lock();
        let listed = |one: &HookCursor| ListedCursor { cursor: Some(one.clone()), dropped };
        Ok(cursors.values().map(listed).collect())
    }

    async fn advance(&self, advances: Vec<CursorAdvance>) -> Result<Vec<HookCursor>, Refusal> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(Refusal::new(Reason::Unavailable, "nobody leads"));
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
            (cursor.version, cursor.state) = (advance.version, advance.state);
            self.states.lock().push(advance.state());
        }
        Ok(advances.iter().filter_map(|one| cursors.get(&one.hook).cloned()).collect())
    }
}

/// A node with one group and one region, and hooks by name that write lines.
struct Fixture {
    folder: tempfile::TempDir,
    storage: Storage,
    groups: Arc<Groups>,
    replica: Arc<GroupReplica>,
    hooks: Arc<NodeHooks>,
    book: Book,
    writes: u8,
}

impl Fixture {
    async fn new(hooks: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::memory();
        let groups = node_over(folder.path(), storage.clone());
        let replica = groups.start(GROUP).await.unwrap();
        groups.initialize(&replica, members()).await.unwrap();
        until("the group has a leader", async || replica.leadership().is_leader).await;
        let opened = entry::opened(region(REGION.get(), None, None), Sequence(0));
        replica.propose(opened, LIMIT).await.unwrap().into_result().unwrap();
        let home = HookHome { role: "data", node_id: NODE };
        let kinds = tidewater_hook_kinds::builtin();
        let node_hooks = Arc::new(NodeHooks::new(kinds, home, Plugins::default()));
        let mut fixture = Self {
            folder,
            storage,
            groups,
            replica,
            hooks: node_hooks,
            book: Book::default(),
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
        self.folder.path().join(format!("{hook}.jsonl"))
    }

    /// Writes a row and flushes it.
    async fn flush(&mut self) {
        self.writes += 1;
        // Another producer each time; its first write opens it.
        let opened = self.write(write(self.writes, 1, &[])).await;
        let rows = write(self.writes, 2, &[i64::from(self.writes)]);
        self.write(v1::WriteRequest { opening: opened, ..rows }).await;
        let (asker, answer) = oneshot::channel();
        self.replica.flush_requests.send(FlushRequest::Region(REGION, asker)).await.unwrap();
        answer.await.unwrap().unwrap();
    }

    /// Its sequence.
    async fn write(&self, write: v1::WriteRequest) -> u64 {
        let written = self.replica.propose(entry::writes(vec![write]), LIMIT).await.unwrap();
        written.into_result().unwrap().sequence
    }

    /// As far as the region has read its manifest.
    fn tail(&self) -> u64 {
        let hosted = self.replica.shared.regions.get(REGION).unwrap();
        hosted.region.stats().manifest_version.get()
    }

    /// Tells until the guard is dropped: what happens then is what a crash leaves.
    fn tell(&self) -> Telling {
        let closing = CancellationToken::new();
        let run = run(self.groups.clone(), self.hooks.clone(), self.book.clone(), closing);
        Telling(tokio::spawn(run))
    }

    /// What is committed now is told; more may be, for files are merged meanwhile.
    async fn caught_up(&self, hook: &str) {
        let tail = self.tail();
        until("everything is told", async || self.book.version(hook) >= Some(tail)).await;
    }

    fn lines(&self, hook: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(hook)).unwrap_or_default();
        // What follows the last line break is being written.
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

struct Telling(tokio::task::JoinHandle<()>);

impl Telling {
    /// When this returns, nothing is told or recorded any more.
    async fn stop(mut self) {
        self.0.abort();
        assert!((&mut self.0).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The first time of each version, in order of lines.
fn firsts(versions: &[u64]) -> Vec<u64> {
    let mut firsts = Vec::new();
    for version in versions {
        if !firsts.contains(version) {
            firsts.push(*version);
        }
    }
    firsts
}

/// Each version once, without a gap, from `first` to at least `last`.
fn assert_complete(versions: &[u64], first: u64, last: u64) {
    let reached = versions.last().copied().unwrap_or(0);
    assert!(reached >= last, "{versions:?} to {last}");
    assert_eq!(versions, (first..=reached).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_told_in_order_and_what_was_not_recorded_is_told_again() {
    let mut fixture = Fixture::new(&["h"]).await;
    fixture.book.set("h", 0, CursorState::Tail);
    let telling = fixture.tell();
    for _ in 0..3 {
        fixture.flush().await;
    }
    fixture.caught_up("h").await;
    assert_complete(&fixture.versions("h"), 1, 5);
    assert_eq!(fixture.lines("h")[0]["manifest"], "bookkeeping", "the owner's fence");
    // Told, and not recorded: then the node dies.
    fixture.book.deaf.store(true, Ordering::SeqCst);
    let recorded = fixture.book.version("h").unwrap();
    fixture.flush().await;
    until("it is told", async || fixture.versions("h").last() > Some(&recorded)).await;
    telling.stop().await;
    fixture.book.deaf.store(false, Ordering::SeqCst);
    let _telling = fixture.tell();
    fixture.flush().await;
    fixture.caught_up("h").await;
    let told = fixture.versions("h");
    let again = told.iter().filter(|version| **version == recorded + 1).count();
    assert!(again >= 2, "{told:?}: {recorded} was recorded");
    assert_complete(&firsts(&told), 1, recorded + 2);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_begins_where_it_is_asked_to() {
    let mut fixture = Fixture::new(&["now", "start", "from", "gone"]).await;
    fixture.flush().await;
    let tail = fixture.tail();
    fixture.book.set("now", 0, CursorState::Now);
    fixture.book.set("start", 0, CursorState::Start);
    fixture.book.set("from", 1, CursorState::From);
    fixture.book.set("gone", tail + 100, CursorState::From);
    let _telling = fixture.tell();
    let state = |hook: &str| fixture.book.cursors.lock().get(hook).map(HookCursor::state);
    until("it is found missing", async || state("gone") == Some(CursorState::Gone)).await;
    until("now is known", async || state("now") == Some(CursorState::Tail)).await;
    until("a snapshot is told", async || state("start") == Some(CursorState::Tail)).await;
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
async fn a_hook_whose_next_version_was_cleaned_lags_and_begins_with_a_snapshot() {
    let mut fixture = Fixture::new(&["h"]).await;
    // Beyond the first checkpoint.
    while fixture.tail() < 18 {
        fixture.flush().await;
    }
    fixture.book.set("h", 1, CursorState::Tail);
    let (table_id, incarnation) = (TableId(3), Incarnation(1));
    let dir = RegionDir { table_id, region_id: REGION, incarnation };
    fixture.storage.delete(&dir.delta(ManifestVersion(2))).await.unwrap();
    let _telling = fixture.tell();
    until("it goes on", async || fixture.book.states.lock().contains(&CursorState::Tail)).await;
    assert_eq!(fixture.book.states.lock()[..2], [CursorState::Lagged, CursorState::Tail]);
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
async fn a_hook_that_fails_holds_up_no_other_and_catches_up() {
    let mut fixture = Fixture::new(&["missing/bad", "good"]).await;
    fixture.book.set("missing/bad", 0, CursorState::Tail);
    fixture.book.set("good", 0, CursorState::Tail);
    let _telling = fixture.tell();
    fixture.flush().await;
    fixture.caught_up("good").await;
    let failures = || {
        let reports = fixture.hooks.reports();
        reports.iter().find(|one| one.name == "missing/bad").map_or(0, |one| one.failures)
    };
    until("it fails more than once", async || failures() >= 2).await;
    assert_eq!(fixture.book.version("missing/bad"), Some(0));
    let lag = |name: &str| {
        let reports = fixture.hooks.reports();
        reports.iter().find(|one| one.name == name).map(|one| one.backlog)
    };
    until("its lag shows", async || lag("missing/bad") >= Some(4)).await;
    until("the other has none", async || lag("good") == Some(0)).await;
    std::fs::create_dir(fixture.folder.path().join("missing")).unwrap();
    fixture.caught_up("missing/bad").await;
    assert_complete(&fixture.versions("missing/bad"), 1, 4);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_region_is_told_through_its_removal() {
    let fixture = Fixture::new(&["h"]).await;
    fixture.book.set("h", 0, CursorState::Tail);
    let (asker, answer) = oneshot::channel();
    fixture.replica.flush_requests.send(FlushRequest::Remove(REGION, asker)).await.unwrap();
    answer.await.unwrap().unwrap();
    fixture.replica.propose(entry::dropped(REGION), LIMIT).await.unwrap().into_result().unwrap();
    assert!(fixture.replica.shared.regions.get(REGION).is_none());
    let _telling = fixture.tell();
    until("the cursor is gone", async || fixture.book.version("h").is_none()).await;
    let lines = fixture.lines("h");
    let last = lines.last().unwrap();
    assert_eq!(last["actions"], serde_json::json!([{ "remove": {} }]));
    assert_eq!(last["manifest"], "bookkeeping");
    assert_complete(&fixture.versions("h"), 1, 4);
    // One that was never opened has no removal: it ends when its table is gone.
    fixture.book.set("h", 0, CursorState::Tail);
    fixture.book.cursors.lock().get_mut("h").unwrap().region_id = 99;
    fixture.book.dropped.store(true, Ordering::SeqCst);
    until("the cursor is gone", async || fixture.book.version("h").is_none()).await;
    fixture.stop().await;
}
