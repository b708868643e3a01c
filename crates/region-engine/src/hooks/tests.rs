//! Tests of the registry, the kinds, and the shield of one hook.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidewater_common::ids::{FileId, NodeId, RegionId, TableId};
use uuid::Uuid;

use super::testing::{FaultyHook, HookCall, HookFault, Recorder};
use super::*;
use crate::layout::RegionDir;
use crate::manifest::samples::DIR;

fn limits() -> HookLimits {
    HookLimits { failures_in_a_row: 3, ..HookLimits::default() }
}

fn removed() -> FilesRemoved {
    FilesRemoved { files: vec![FileId(Uuid::from_u128(1))], reason: RemovalReason::Orphan }
}

fn status(plugins: &Plugins, name: &str) -> HookStatus {
    plugins.status().into_iter().find(|status| status.name == name).unwrap()
}

#[tokio::test]
async fn hooks_have_unique_names_and_are_called_in_order() {
    let plugins = Plugins::default();
    let log = Arc::new(Mutex::new(Vec::new()));
    for name in ["c", "a", "b"] {
        plugins.insert(Recorder::with_log(name, &log)).unwrap();
    }
    let taken = plugins.insert(Recorder::with_log("b", &log)).unwrap_err();
    assert_eq!(taken, HookSetupError::NameTaken { name: "b".to_owned() });
    let hooks = RegionHooks::without_files(&plugins, DIR);
    hooks.files_removed(removed()).await;
    assert_eq!(*log.lock(), ["a", "b", "c"]);
    assert!(plugins.remove("b"));
    assert!(!plugins.remove("b"));
    hooks.files_removed(removed()).await;
    assert_eq!(log.lock()[3..], ["a", "c"]);
}

#[tokio::test]
async fn hook_of_one_table_sees_no_other() {
    let plugins = Plugins::default();
    let recorder = Recorder::new("one");
    let hook: RegionHookRef = recorder.clone();
    plugins.insert(HookRegistration { table: Some(DIR.table_id), ..hook.into() }).unwrap();
    RegionHooks::without_files(&plugins, RegionDir { table_id: TableId(99), ..DIR })
        .files_removed(removed())
        .await;
    assert!(recorder.take().is_empty());
    RegionHooks::without_files(&plugins, DIR).files_removed(removed()).await;
    assert_eq!(recorder.take(), [HookCall::FilesRemoved(removed())]);
}

#[tokio::test]
async fn durable_hook_gets_no_live_events_and_no_suspension() {
    use crate::manifest::ManifestState;
    use crate::manifest::history::PastDelta;
    use crate::manifest::samples::{delta, flush};
    let plugins = Plugins::new(limits());
    let recorder = Recorder::new("one");
    let hook: RegionHookRef = recorder.clone();
    plugins.insert(HookRegistration { durable: true, ..hook.into() }).unwrap();
    let bad: RegionHookRef = Arc::new(FaultyHook("two", HookFault::Fails));
    plugins.insert(HookRegistration { durable: true, ..bad.into() }).unwrap();
    let hooks = RegionHooks::without_files(&plugins, DIR);
    let committed = Arc::new(delta(7, flush(1, 7)));
    let state = ManifestState::empty(DIR);
    hooks.manifest_updated(committed.clone(), ManifestKind::Live, &state).await;
    hooks.files_removed(removed()).await;
    assert!(recorder.take().is_empty());
    let past = PastDelta { delta: committed.clone(), manifest: ManifestKind::Live, schema: None };
    let source = EventSource::new(DIR);
    plugins.durable("one").unwrap().manifest_updated(&source, &past).await.unwrap();
    let actions = committed.actions.clone();
    let version = committed.version;
    let manifest = ManifestKind::Live;
    assert_eq!(recorder.take(), [HookCall::Updated { version, manifest, actions }]);
    let failing = plugins.durable("two").unwrap();
    for _ in 0..5 {
        failing.manifest_updated(&source, &past).await.unwrap_err();
    }
    let shown = status(&plugins, "two");
    assert_eq!((shown.state, shown.failures, shown.skipped), (HookState::Active, 5, 0));
    assert!(plugins.set_paused("two", true));
    assert!(failing.is_paused());
    let other: RegionHookRef = Recorder::new("three");
    plugins.insert(other).unwrap();
    assert!(plugins.durable("three").is_none(), "it is not durable");
}

#[tokio::test]
async fn paused_hook_is_skipped_until_resumed() {
    let plugins = Plugins::default();
    let recorder = Recorder::new("one");
    plugins.insert(recorder.clone() as RegionHookRef).unwrap();
    let hooks = RegionHooks::without_files(&plugins, DIR);
    assert!(plugins.set_paused("one", true));
    hooks.files_removed(removed()).await;
    assert!(recorder.take().is_empty());
    let shown = status(&plugins, "one");
    assert_eq!((shown.state, shown.calls, shown.skipped), (HookState::Paused, 0, 1));
    assert!(plugins.set_paused("one", false));
    hooks.files_removed(removed()).await;
    assert_eq!(recorder.take().len(), 1);
    assert!(!plugins.set_paused("two", true));
}

#[tokio::test(start_paused = true)]
async fn faulty_hook_is_counted_suspended_and_probed() {
    for (fault, suspended_after) in
        [(HookFault::Panics, 3), (HookFault::Hangs, 2), (HookFault::Fails, 3)]
    {
        let plugins = Plugins::new(limits());
        let recorder = Recorder::new("good");
        plugins.insert(Arc::new(FaultyHook("bad", fault)) as RegionHookRef).unwrap();
        plugins.insert(recorder.clone() as RegionHookRef).unwrap();
        let hooks = RegionHooks::without_files(&plugins, DIR);
        for number in 0..10 {
            let error = hooks.region_gc(GcPass::default()).await;
            assert_eq!(error.is_err(), number < suspended_after, "{fault:?} {number}");
        }
        assert_eq!(recorder.take().len(), 10, "{fault:?}");
        let bad = status(&plugins, "bad");
        let counted = (bad.calls, bad.failures, bad.skipped);
        assert_eq!(counted, (suspended_after, suspended_after, 10 - suspended_after), "{fault:?}");
        assert_eq!(bad.state, HookState::Suspended);
        let last_error = bad.last_error.unwrap();
        let expected = match fault {
            HookFault::Panics => "it panicked: fault of the bad hook",
            HookFault::Hangs => "no answer within 5s",
            HookFault::Fails => "simulated failure",
        };
        assert_eq!(last_error, expected);
        tokio::time::advance(limits().suspension).await;
        let probed = tokio::time::Instant::now();
        for _ in 0..2 {
            hooks.region_gc(GcPass::default()).await.unwrap();
        }
        // No caller waits for the probe.
        assert_eq!(probed.elapsed(), Duration::ZERO, "{fault:?}");
        tokio::time::sleep(limits().time_limit * 2).await;
        assert_eq!(status(&plugins, "bad").calls, suspended_after + 1, "{fault:?}");
        let good = status(&plugins, "good");
        assert_eq!((good.state, good.calls, good.failures), (HookState::Active, 12, 0));
    }
}

/// Keeps the suspensions that it receives.
#[derive(Debug, Default)]
struct Suspensions(Mutex<Vec<(String, RegionDir, String)>>);

impl SuspensionCallback for Suspensions {
    fn suspended(&self, hook: &str, dir: RegionDir, cause: &str) {
        self.0.lock().push((hook.to_owned(), dir, cause.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn each_suspension_is_reported_once() {
    let suspensions = Arc::new(Suspensions::default());
    let plugins = Plugins::with_callback(limits(), suspensions.clone());
    plugins.insert(Arc::new(FaultyHook("bad", HookFault::Fails)) as RegionHookRef).unwrap();
    let hooks = RegionHooks::without_files(&plugins, DIR);
    for number in 0..10 {
        assert_eq!(hooks.region_gc(GcPass::default()).await.is_err(), number < 3, "{number}");
    }
    // The probe fails, too: the suspension continues.
    tokio::time::advance(limits().suspension).await;
    hooks.region_gc(GcPass::default()).await.unwrap();
    tokio::time::sleep(limits().time_limit).await;
    assert_eq!(status(&plugins, "bad").calls, 4);
    let expected = ("bad".to_owned(), DIR, "simulated failure".to_owned());
    assert_eq!(*suspensions.0.lock(), [expected]);
}

/// Hangs when files are removed, and ignores other events.
#[derive(Debug)]
struct HangsOnFiles;

#[async_trait]
impl RegionHook for HangsOnFiles {
    fn name(&self) -> &str {
        "bad"
    }

    async fn on_files_removed(&self, _: RegionId, _: &FilesRemoved) -> Result<(), HookError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn hook_that_hangs_on_one_event_is_suspended() {
    let plugins = Plugins::new(limits());
    let recorder = Recorder::new("good");
    plugins.insert(Arc::new(HangsOnFiles) as RegionHookRef).unwrap();
    plugins.insert(recorder.clone() as RegionHookRef).unwrap();
    let hooks = RegionHooks::without_files(&plugins, DIR);
    let start = tokio::time::Instant::now();
    for _ in 0..10 {
        hooks.files_removed(removed()).await;
        hooks.region_gc(GcPass::default()).await.unwrap();
    }
    assert_eq!(start.elapsed(), limits().time_limit * 2);
    assert_eq!(recorder.take().len(), 20, "other hooks miss no event");
    assert_eq!(status(&plugins, "bad").state, HookState::Suspended);
}

/// Blocks its thread until the test drops the sender.
#[derive(Debug)]
struct Blocks(Mutex<mpsc::Receiver<()>>);

#[async_trait]
impl RegionHook for Blocks {
    async fn on_region_gc(&self, _: RegionId, _: &GcPass) -> Result<(), HookError> {
        let _ = self.0.lock().recv();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hook_that_blocks_its_thread_delays_callers_within_limit() {
    let time_limit = Duration::from_millis(50);
    let plugins = Plugins::new(HookLimits { time_limit, ..limits() });
    let (release, blocked) = mpsc::channel();
    plugins.insert(Arc::new(Blocks(Mutex::new(blocked))) as RegionHookRef).unwrap();
    let error =
        RegionHooks::without_files(&plugins, DIR).region_gc(GcPass::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 50ms");
    drop(release);
    let shown = plugins.status().remove(0);
    assert!(shown.name.ends_with("::Blocks"), "{}", shown.name);
    assert_eq!(shown.failures, 1);
}

#[derive(Debug)]
struct Named;

impl HookKind for Named {
    fn kind(&self) -> &'static str {
        "named"
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        config["as"].as_str().map(|_| ()).ok_or_else(|| "\"as\" must be a string".to_owned())
    }

    fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, String> {
        let name = spec.config["as"].as_str().unwrap_or_default();
        Ok(Recorder::new(&format!("{name} at {} {}", home.role, home.node_id)))
    }
}

#[test]
fn invalid_configuration_is_refused_immediately() {
    let mut kinds = HookKinds::default();
    kinds.register(Arc::new(Named)).unwrap();
    let taken = kinds.register(Arc::new(Named)).unwrap_err();
    assert_eq!(taken, HookSetupError::KindTaken { kind: "named".to_owned() });
    let home = HookHome { role: "data", node_id: NodeId(101) };
    let spec = |kind: &str, config| HookSpec {
        name: "mine".to_owned(),
        kind: kind.to_owned(),
        config,
        durable: false,
        generation: 0,
    };
    let good = spec("named", json!({ "as": "x" }));
    kinds.check(&good).unwrap();
    assert_eq!(kinds.make(&good, home).unwrap().name(), "x at data 101");
    for (spec, expected) in [
        (spec("other", json!({})), "hook mine: unknown kind \"other\"; known are named"),
        (
            spec("named", json!({ "as": 1 })),
            "hook mine: invalid configuration for kind named: \"as\" must be a string",
        ),
    ] {
        assert_eq!(kinds.check(&spec).unwrap_err().to_string(), expected);
        assert_eq!(kinds.make(&spec, home).unwrap_err().to_string(), expected);
    }
}
