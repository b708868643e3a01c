//! H1: coverage table of hook calls, with one scenario for each operation.
//!
//! A new operation or action needs a row in this table: the module does not compile without it.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, FileId, RegionId, Sequence};
use tidewater_common::schema::WriteMode;

use crate::compaction::{Attempt, OpenCompactionRegionRequest, Scope};
use crate::env::{IdSource, SystemIds};
use crate::gc::{GarbageCollector, GcRequest};
use crate::hooks::testing::{HookCall, Recorder};
use crate::hooks::{HookSpec, ManifestKind, Plugins, RegionHookRef};
use crate::index::Bloom;
use crate::manifest::{ActionKind, AreaId, AreaStep};
use crate::region::tests::fixture::*;
use crate::region::tests::remote_compactor::{RemoteJob, committed_outcome, plugin, request};
use crate::region::{Parent, Publication, PublicationContent};
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowOp, RowsWrite};

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Operation { $($name),* }
        const ALL: &[Operation] = &[$(Operation::$name),*];
    };
}

operations! {
    Flush, LocalCompaction, RemoteCompaction, Edit, Copy, Create, Seal, EnterStaging, ApplyStaging,
    Alter, Truncate, BuildIndex, Follow, Fence, Gc, Checkpoint, Drop, Remap,
}

/// Returns a row of the table: whether `on_sst_files_written` is called, and the kind of each
/// `on_manifest_updated`. Only hooks on the node that runs the operation are called.
fn row(operation: Operation) -> (bool, &'static [ManifestKind]) {
    use ManifestKind::{Live, Staging};
    match operation {
        Operation::Flush | Operation::LocalCompaction => (true, &[Live]),
        // On the compactor node.
        Operation::RemoteCompaction => (true, &[Live]),
        Operation::Edit | Operation::Copy => (false, &[Live]),
        Operation::Create | Operation::Seal => (false, &[Live]),
        Operation::EnterStaging => (false, &[Staging]),
        // One call for the edit, and one for the merge of all staged actions.
        Operation::ApplyStaging => (false, &[Live, Live]),
        Operation::Alter | Operation::Truncate | Operation::BuildIndex => (false, &[Live]),
        Operation::Follow => (false, &[]),
        Operation::Fence
        | Operation::Gc
        | Operation::Checkpoint
        | Operation::Drop
        | Operation::Remap => (false, &[]),
    }
}

/// Returns the operations that commit an action.
fn operations_of(kind: &ActionKind) -> &'static [Operation] {
    use Operation::*;
    match kind {
        ActionKind::Alter { .. } => &[Create, Alter, EnterStaging, ApplyStaging],
        ActionKind::PartitionExprChange { .. } => &[Create, Seal, Remap],
        ActionKind::Edit(_) => &[
            Flush,
            LocalCompaction,
            RemoteCompaction,
            Edit,
            Copy,
            ApplyStaging,
            BuildIndex,
            EnterStaging,
            Remap,
        ],
        ActionKind::Truncate(_) => &[Truncate, ApplyStaging, EnterStaging],
        ActionKind::Remove => &[Drop],
        ActionKind::Fence { .. } => &[Fence],
        ActionKind::GcFloor { .. } => &[Gc],
        ActionKind::Area { step, .. } => match step {
            AreaStep::Open { .. } => &[EnterStaging],
            AreaStep::Publish => &[Edit, Copy, ApplyStaging],
            AreaStep::Abandon | AreaStep::Merged(_) => &[ApplyStaging],
        },
    }
}

/// A region with rows in a file and rows in memory, on a data node with a recording hook, and a
/// compactor with another recording hook.
struct Scenario {
    storage: Storage,
    plugins: Plugins,
    recorder: Arc<Recorder>,
    passed: Arc<Recorder>,
    region: Arc<Region>,
}

impl Scenario {
    async fn new() -> Self {
        let storage = Storage::memory();
        let plugins = Plugins::default();
        let recorder = Recorder::new("recorder");
        plugins.insert(recorder.clone() as RegionHookRef).unwrap();
        let region = open(&storage, &plugins);
        let passed = Recorder::new("passed");
        let scenario = Self { storage, plugins, recorder, passed, region };
        scenario.region.take_ownership(owner(1), GROUP).await.unwrap();
        scenario.put(10, 0);
        scenario.region.flush().await.unwrap();
        scenario.put(20, 5);
        scenario.recorder.take();
        scenario
    }

    fn put(&self, sequence: u64, first: i32) {
        let rows: Vec<Row> =
            (first..first + 10).map(|n| (("k".to_owned(), n), None, "n".to_owned())).collect();
        let batch = put_batch(&rows, self.region.spec());
        let sequence = Sequence(sequence);
        let write = RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch };
        self.region.apply(write).unwrap();
    }

    /// Flushes, so that a publication does not have to, and discards the recorded calls.
    async fn flush(&self) {
        self.region.flush().await.unwrap();
        self.recorder.take();
    }

    async fn bulk_files(&self) -> Vec<FileId> {
        let rows = [(("bulk".to_owned(), 1), None, "n".to_owned())];
        bulk_files(&self.storage, self.region.spec(), &rows).await
    }

    async fn publish(&self, region: &Region, area: AreaId, content: PublicationContent) {
        let publication = Publication { area, epoch: Epoch(0), content };
        let sequence = Sequence(region.last_sequence().get() + 10);
        region.publish(cause(sequence), publication).unwrap();
        region.record_obligations().await.unwrap();
    }

    /// Returns another region of the same store.
    fn other(&self, id: u64, parents: Vec<Parent>) -> Arc<Region> {
        let env = env(self.storage.clone()).with_plugins(self.plugins.clone());
        let spec = RegionSpec { region_id: RegionId(id), parents, ..self.region.spec().clone() };
        Region::new(env, spec, Sequence(1_000), Sequence(0)).unwrap()
    }

    async fn open_staging_area(&self) -> AreaId {
        let area = new_area();
        self.region.open_area(cause(Sequence(30)), area, DEADLINE).unwrap();
        self.region.record_obligations().await.unwrap();
        area
    }

    /// Compacts on a compactor that shares the process of a data node, which has its own hooks.
    async fn compact_remotely(&self, plugins: Vec<HookSpec>) {
        self.flush().await;
        let planned = self.region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
        let request = OpenCompactionRegionRequest { hooks: plugins, ..request(&self.region, 1) };
        let env = env(self.storage.clone()).with_plugins(self.plugins.clone());
        let hook = self.passed.clone();
        let remote_job =
            RemoteJob::prepare_with(&env, hook, request, planned.plan()).await.unwrap();
        let committed = remote_job.run(&Attempt::default()).await.unwrap();
        let outcome = planned.resolve_outcome().await.unwrap();
        assert_eq!(outcome, committed_outcome(&committed));
    }

    async fn run(&self, operation: Operation) {
        match operation {
            Operation::Flush => {
                assert_eq!(self.region.flush().await.unwrap().files, 1);
            }
            Operation::Create => {
                let new = open(&Storage::memory(), &self.plugins);
                new.take_ownership(owner(1), GROUP).await.unwrap();
            }
            Operation::Follow => {
                let follower = open(&self.storage, &self.plugins);
                follower.load().await.unwrap();
                follower.load().await.unwrap();
            }
            Operation::Fence => {
                let version = self.region.stats().manifest_version;
                let fenced = self.region.take_ownership(owner(2), GROUP).await.unwrap();
                assert_eq!(fenced, version.next());
            }
            Operation::Checkpoint => {
                let shown = |json: serde_json::Value| json["checkpoint"].as_u64();
                let before = shown(self.region.manifest_json().await.unwrap());
                for term in 2..20 {
                    self.region.take_ownership(owner(term), GROUP).await.unwrap();
                }
                assert!(shown(self.region.manifest_json().await.unwrap()) > before);
            }
            Operation::Drop => self.region.remove().await.unwrap(),
            Operation::BuildIndex => {
                assert_eq!(self.region.build_indexes(&Bloom).await.unwrap().built, 1);
            }
            Operation::LocalCompaction => {
                self.region.flush().await.unwrap();
                self.recorder.take();
                let attempt = Attempt::default();
                self.region.compact(Scope::Whole, Epoch(0), &attempt).await.unwrap().unwrap();
            }
            Operation::Alter => {
                let spec = self.region.spec();
                let schema = spec.schema.altered(&[added("more")]).unwrap();
                self.region.alter(cause(Sequence(30)), schema, spec.options.clone()).unwrap();
                self.region.record_obligations().await.unwrap();
            }
            Operation::Truncate => {
                self.region.truncate(cause(Sequence(30))).unwrap();
                self.region.record_obligations().await.unwrap();
            }
            Operation::Gc => {
                let dir = self.region.files()[0].origin;
                let orphan = dir.data(FileId(SystemIds.at(1)));
                self.storage.put(&orphan, bytes::Bytes::from_static(b"rows")).await.unwrap();
                let (found, _) = tokio::sync::mpsc::channel(1);
                let request =
                    GcRequest { floor_ms: 2, dry_run: false, table: None, max_deletions: 10 };
                let env = env(self.storage.clone()).with_plugins(self.plugins.clone());
                let report = GarbageCollector::new(env).collect(&request, &found).await.unwrap();
                assert_eq!(report.deleted, 1);
            }
            Operation::Edit => {
                self.flush().await;
                let area = new_area();
                self.region.adopt(area, &self.bulk_files().await, DEADLINE).await.unwrap();
                self.publish(&self.region, area, PublicationContent::Files).await;
            }
            Operation::Copy => {
                self.flush().await;
                let other = self.other(100, Vec::new());
                other.take_ownership(owner(1), GROUP).await.unwrap();
                self.recorder.take();
                let staged = other.copy_from(self.region.dir, DEADLINE).await.unwrap();
                self.publish(&other, staged.area, PublicationContent::Copies).await;
            }
            Operation::Seal => {
                self.region.set_range(sealed_range(), None).await.unwrap();
            }
            Operation::EnterStaging => {
                self.open_staging_area().await;
            }
            Operation::ApplyStaging => {
                self.flush().await;
                let area = self.open_staging_area().await;
                self.region.stage_files(area, &self.bulk_files().await).await.unwrap();
                self.recorder.take();
                self.publish(&self.region, area, PublicationContent::Area { table: None }).await;
            }
            Operation::Remap => {
                let sealed_at = self.region.set_range(sealed_range(), None).await.unwrap();
                self.recorder.take();
                let last_sequence = self.region.last_sequence();
                let parent = Parent { dir: self.region.dir, sealed_at, last_sequence };
                self.other(101, vec![parent]).begin().await.unwrap();
            }
            Operation::RemoteCompaction => self.compact_remotely(vec![plugin()]).await,
        }
    }
}

fn open(storage: &Storage, plugins: &Plugins) -> Arc<Region> {
    let env = env(storage.clone()).with_plugins(plugins.clone());
    Region::new(env, spec(WriteMode::Upsert, false), Sequence(0), Sequence(0)).unwrap()
}

#[tokio::test]
async fn hooks_see_staged_files_but_not_adopted_ones() {
    let scenario = Scenario::new().await;
    scenario.flush().await;
    let area = scenario.open_staging_area().await;
    scenario.recorder.take();
    scenario.region.stage_files(area, &scenario.bulk_files().await).await.unwrap();
    let seen = scenario.recorder.take();
    let [HookCall::Updated { manifest: ManifestKind::Staging, .. }] = seen.as_slice() else {
        panic!("{seen:#?}");
    };
    scenario.region.adopt(new_area(), &scenario.bulk_files().await, DEADLINE).await.unwrap();
    scenario.region.abandon(cause(Sequence(40)), area).unwrap();
    scenario.region.record_obligations().await.unwrap();
    assert_eq!(scenario.recorder.take(), []);
}

#[tokio::test]
async fn scenario_calls_exactly_the_hooks_of_its_row() {
    for &operation in ALL {
        let scenario = Scenario::new().await;
        scenario.run(operation).await;
        let local = scenario.recorder.take();
        let remote = scenario.passed.take();
        let (seen, other) = match operation {
            Operation::RemoteCompaction => (remote, local),
            _ => (local, remote),
        };
        assert_eq!(other, [], "{operation:?}");
        let (written, updated) = row(operation);
        let files: Vec<_> = seen
            .iter()
            .filter_map(|call| match call {
                HookCall::Written(files) => Some(files.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(!files.is_empty(), written, "{operation:?}: {seen:#?}");
        let updates: Vec<_> = seen
            .iter()
            .filter_map(|call| match call {
                HookCall::Updated { manifest, actions, .. } => Some((*manifest, actions.clone())),
                _ => None,
            })
            .collect();
        let kinds: Vec<_> = updates.iter().map(|(manifest, _)| *manifest).collect();
        assert_eq!(kinds, updated, "{operation:?}: {seen:#?}");
        for action in updates.iter().flat_map(|(_, actions)| actions) {
            assert!(operations_of(&action.kind).contains(&operation), "{operation:?}: {action:?}");
        }
    }
}

#[tokio::test]
async fn compactor_calls_only_hooks_of_the_request() {
    let scenario = Scenario::new().await;
    let files = scenario.region.files();
    scenario.compact_remotely(Vec::new()).await;
    assert_ne!(scenario.region.files(), files);
    assert_eq!((scenario.passed.take(), scenario.recorder.take()), (vec![], vec![]));
}

#[tokio::test]
async fn written_file_is_reported_before_its_manifest_update() {
    let scenario = Scenario::new().await;
    scenario.run(Operation::Flush).await;
    let seen = scenario.recorder.take();
    let [HookCall::Written(files), HookCall::Updated { actions, version, .. }] = seen.as_slice()
    else {
        panic!("{seen:#?}");
    };
    let ActionKind::Edit(edit) = &actions[0].kind else { panic!("{actions:?}") };
    assert_eq!(edit.add.iter().map(|file| file.file_id).collect::<Vec<_>>(), *files);
    assert_eq!(*version, scenario.region.stats().manifest_version);
}
