//! H2 and H3: no hook runs under the manifest's lock, and no hook changes the engine's behaviour. Also the
//! lifecycle events of a region.

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use tidewater_common::ids::{ManifestVersion, OwnerEpoch, RegionId, Sequence};
use tidewater_common::schema::WriteMode;

use crate::hooks::testing::{FaultyHook, HookCall, HookFault, Recorder};
use crate::hooks::{
    HookError, ManifestKind, Plugins, RegionHook, RegionHookRef, RegionMetaActionList, RegionRole,
    SstFileInfo,
};
use crate::region::tests::fixture::*;
use crate::storage::Operation;
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{EngineError, Region, RegionSpec};

fn some_rows(from: i32) -> Vec<Row> {
    (from..from + 10).map(|n| (("k".to_owned(), n), Some(i64::from(n)), "n".to_owned())).collect()
}

fn open(storage: &Storage, plugins: &Plugins) -> Arc<Region> {
    let env = env(storage.clone()).with_plugins(plugins.clone());
    Region::new(env, spec(WriteMode::Upsert, false), Sequence(0), Sequence(0)).unwrap()
}

/// Returns a fixture whose region has these hooks and has not been loaded yet.
async fn fixture(storage: Storage, plugins: &Plugins) -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.region = open(&storage, plugins);
    fixture.storage = storage;
    fixture
}

/// Hook that reads the manifest, which takes the manifest's lock, on every call.
#[derive(Debug, Default)]
struct ReadingHook {
    region: OnceLock<Weak<Region>>,
}

impl ReadingHook {
    async fn read(&self) -> Result<(), HookError> {
        let Some(region) = self.region.get().and_then(Weak::upgrade) else { return Ok(()) };
        region.load().await.map(|_| ()).map_err(HookError::new)
    }
}

#[async_trait]
impl RegionHook for ReadingHook {
    async fn on_sst_files_written(
        &self,
        _: RegionId,
        _: &RegionSpec,
        _: &[SstFileInfo],
    ) -> Result<(), HookError> {
        self.read().await
    }

    async fn on_manifest_updated(
        &self,
        _: RegionId,
        _: &RegionMetaActionList,
        version: ManifestVersion,
        _: ManifestKind,
    ) -> Result<(), HookError> {
        self.read().await?;
        let region = self.region.get().and_then(Weak::upgrade);
        let reached = region.map(|region| region.stats().manifest_version);
        match reached {
            Some(reached) if reached < version => Err(HookError::new("not in the manifest yet")),
            _ => Ok(()),
        }
    }

    async fn on_region_opened(&self, _: RegionId, _: &RegionSpec) -> Result<(), HookError> {
        self.read().await
    }

    async fn on_region_role_changed(
        &self,
        _: RegionId,
        _: RegionRole,
        _: RegionRole,
        _: OwnerEpoch,
    ) -> Result<(), HookError> {
        self.read().await
    }
}

#[tokio::test(start_paused = true)]
async fn hook_can_read_the_manifest() {
    let plugins = Plugins::default();
    let hook = Arc::new(ReadingHook::default());
    plugins.insert(hook.clone() as RegionHookRef).unwrap();
    let mut fixture = fixture(Storage::memory(), &plugins).await;
    hook.region.set(Arc::downgrade(&fixture.region)).unwrap();
    fixture.region.take_ownership(owner(1), GROUP).await.unwrap();
    fixture.put(&some_rows(0));
    fixture.region.flush().await.unwrap();
    let status = plugins.status().remove(0);
    // Opened, leader, created, written, flushed.
    assert_eq!((status.calls, status.failures), (5, 0), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn failing_hooks_change_only_their_counters() {
    let plugins = Plugins::default();
    let recorder = Recorder::new("z");
    for (name, vice) in [("a", HookFault::Panics), ("b", HookFault::Hangs), ("c", HookFault::Fails)]
    {
        plugins.insert(Arc::new(FaultyHook(name, vice)) as RegionHookRef).unwrap();
    }
    plugins.insert(recorder.clone() as RegionHookRef).unwrap();
    let mut bad = fixture(Storage::memory(), &plugins).await;
    let mut plain = fixture(Storage::memory(), &Plugins::default()).await;
    let mut reports = Vec::new();
    for fixture in [&mut bad, &mut plain] {
        fixture.region.take_ownership(owner(1), GROUP).await.unwrap();
        let mut flushes = Vec::new();
        for round in 0..6 {
            fixture.put(&some_rows(round * 5));
            flushes.push(fixture.region.flush().await.unwrap());
        }
        fixture.check().await;
        reports.push(flushes);
    }
    let sizeless = |reports: &Vec<crate::FlushReport>| {
        reports
            .iter()
            .map(|report| (report.manifest_version, report.rows, report.files))
            .collect::<Vec<_>>()
    };
    assert_eq!(sizeless(&reports[0]), sizeless(&reports[1]));
    bad.reopen().await.unwrap();
    bad.check().await;
    // Opened, leader, created, and two calls for each flush: the recorder missed none.
    let seen = recorder.take();
    assert_eq!(seen.len(), 3 + 2 * 6, "{seen:#?}");
    for status in plugins.status() {
        let (calls, failures) = match status.name.as_str() {
            "z" => (15, 0),
            // Hangs, which delays flushes: suspended after fewer failures.
            "b" => (2, 2),
            _ => (5, 5),
        };
        let counted = (status.calls, status.failures, status.skipped);
        assert_eq!(counted, (calls, failures, 15 - calls), "{status:?}");
    }
}

#[tokio::test]
async fn hooks_receive_lifecycle_events_in_order() {
    use RegionRole::{Follower, Leader};
    let storage = Storage::memory();
    let plugins = Plugins::default();
    let recorder = Recorder::new("one");
    plugins.insert(recorder.clone() as RegionHookRef).unwrap();
    let region = open(&storage, &plugins);
    region.load().await.unwrap();
    region.load().await.unwrap();
    assert_eq!(recorder.take(), [HookCall::Opened]);
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let seen = recorder.take();
    assert!(matches!(seen[0], HookCall::Updated { .. }), "{seen:?}");
    assert_eq!(seen[1..], [HookCall::Role(Follower, Leader, owner(1))]);

    let other = open(&storage, &Plugins::default());
    other.take_ownership(owner(2), GROUP).await.unwrap();
    region.load().await.unwrap();
    assert_eq!(recorder.take(), [HookCall::Role(Leader, Follower, owner(2))]);
    other.remove().await.unwrap();
    assert!(matches!(region.load().await, Err(EngineError::Removed { .. })));
    assert_eq!(recorder.take(), [HookCall::Dropped]);
    region.close();
    tokio::task::yield_now().await;
    assert_eq!(recorder.take(), []);

    let again = open(&Storage::memory(), &plugins);
    again.load().await.unwrap();
    assert_eq!(recorder.take(), [HookCall::Opened]);
    again.close();
    // Delivered in the background.
    let mut seen = Vec::new();
    for _ in 0..1_000 {
        seen = recorder.take();
        if !seen.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, [HookCall::Closed]);
}

#[tokio::test]
async fn commit_of_unknown_outcome_is_reported_once_resolved() {
    let store = FaultyStore::new();
    let plugins = Plugins::default();
    let recorder = Recorder::new("one");
    plugins.insert(recorder.clone() as RegionHookRef).unwrap();
    let mut fixture = fixture(store.storage(), &plugins).await;
    fixture.region.take_ownership(owner(1), GROUP).await.unwrap();
    fixture.put(&some_rows(0));
    recorder.take();
    // The put is stored, but every response that would show it is lost.
    let lost = std::sync::atomic::AtomicBool::new(false);
    store.plan(move |call| {
        use std::sync::atomic::Ordering::SeqCst;
        match call.operation {
            Operation::PutIfAbsent if !lost.swap(true, SeqCst) => Fault::ErrorAfter,
            _ if lost.load(SeqCst) => Fault::ErrorBefore,
            _ => Fault::None,
        }
    });
    let error = fixture.region.flush().await.unwrap_err();
    assert!(matches!(error, EngineError::Unknown { .. }), "{error}");
    let seen = recorder.take();
    assert!(matches!(seen.as_slice(), [HookCall::Written(_)]), "{seen:?}");
    store.plan(|_| Fault::None);
    fixture.region.flush().await.unwrap();
    let seen = recorder.take();
    assert!(matches!(seen.as_slice(), [HookCall::Updated { .. }]), "{seen:?}");
    fixture.region.flush().await.unwrap();
    assert_eq!(recorder.take(), []);
    fixture.check().await;
}
