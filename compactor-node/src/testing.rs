//! Test fixtures: a compactor behind a port, a fake meta service, and regions in the compactor's
//! store.

mod meta;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::*;
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_hook_kinds::HookAccess;
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::compaction::v1::compaction_event::Event;
use tidewater_proto::compaction::v1::*;
use tidewater_proto::v1::{CallHeader, ManifestOwnerEpoch, Reason};
use tidewater_region_engine::compaction::{CompactionJob, CompactionPlan, Scope};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Region, RegionSpec, RowOp, RowsWrite, ScanOptions};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use uuid::Uuid;

pub(crate) use self::meta::FakeMeta;
use crate::context::CompactorContext;
use crate::node::{CompactorNode, ServeError};
use crate::options::CompactorOptions;

pub(crate) const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(1));
pub(crate) const NODE: u64 = 7;
/// Node id of the calling data node.
pub(crate) const SOURCE: u64 = 101;
const GROUP: GroupId = GroupId(3);
const LIMIT: Duration = Duration::from_secs(20);

/// A running compactor with its fake meta service and its store.
pub(crate) struct CompactorFixture {
    pub(crate) context: Arc<CompactorContext>,
    pub(crate) meta: Arc<FakeMeta>,
    pub(crate) client: CompactionClient<Channel>,
    pub(crate) storage: Storage,
    pub(crate) store: String,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
    _dir: tempfile::TempDir,
}

impl CompactorFixture {
    /// Starts a compactor with options changed by `change`.
    pub(crate) async fn with(change: impl FnOnce(&mut CompactorOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let meta = Arc::new(FakeMeta::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let metas = vec![meta.clone().serve().await];
        let hook_access = HookAccess::new(Some(&std::env::temp_dir()), None, false, &[]).unwrap();
        let mut options = CompactorOptions {
            heartbeat: Duration::from_millis(20),
            slots: 2,
            disk_reserve: 0,
            hook_kinds: tidewater_hook_kinds::builtin(hook_access),
            ..CompactorOptions::new(&address, metas, &url)
        };
        change(&mut options);
        let node = CompactorNode::start(options).await.unwrap();
        let context = node.context.clone();
        let (stop, stopped) = oneshot::channel();
        let served =
            tokio::spawn(
                async move { node.serve(listener, async move { drop(stopped.await) }).await },
            );
        let storage = Storage::open(&url).await.unwrap();
        Self {
            client: CompactionClient::connect(format!("http://{address}")).await.unwrap(),
            store: storage.id().await.unwrap().to_string(),
            context,
            meta,
            storage,
            stop: Some(stop),
            served,
            _dir: dir,
        }
    }

    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Requests the node to stop, as a signal would.
    pub(crate) fn request_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the node and waits for its end.
    pub(crate) async fn stopped(mut self) {
        self.request_stop();
        tokio::time::timeout(LIMIT, self.served).await.unwrap().unwrap().unwrap();
    }

    /// A region with one file, owned in term 1.
    pub(crate) async fn small_region(&self, id: u64) -> Arc<Region> {
        let region = self.region(id, &[]).await;
        flush(&region, 0..10).await;
        region
    }

    /// A region with one file per element of `rows`, owned in term 1.
    pub(crate) async fn region(&self, id: u64, rows: &[std::ops::Range<i64>]) -> Arc<Region> {
        region(self.storage.clone(), id, rows).await
    }

    pub(crate) fn open_request(&self, region: &Region, term: u64) -> OpenCompactionRegionRequest {
        let spec = region.spec();
        OpenCompactionRegionRequest {
            header: header(),
            dir: Some(dir_of(spec)),
            schema: Some((&spec.schema).into()),
            options: Some((&spec.options).into()),
            object_store_id: self.store.clone(),
            owner_epoch: Some(ManifestOwnerEpoch { move_epoch: 0, term }),
            group_id: GROUP.get(),
            ..Default::default()
        }
    }

    pub(crate) async fn open(&self, region: &Region) -> String {
        let request = self.open_request(region, 1);
        self.client.clone().open_compaction_region(request).await.unwrap().into_inner().handle
    }

    pub(crate) async fn open_refused(&self, request: OpenCompactionRegionRequest) -> Refusal {
        refusal(self.client.clone().open_compaction_region(request).await)
    }

    pub(crate) async fn compact(
        &self,
        handle: &str,
        plan: CompactionPlan,
    ) -> Result<Streaming<CompactionEvent>, Refusal> {
        let reply = self.client.clone().compact(compact_request(handle, (&plan).into())).await;
        reply.map(Response::into_inner).map_err(Refusal::from)
    }

    pub(crate) async fn refused(&self, handle: &str, plan: CompactionPlan) -> Refusal {
        self.compact(handle, plan).await.map(drop).unwrap_err()
    }

    /// Blocks compactions until the permit is dropped.
    pub(crate) async fn hold_workers(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.context.env.workers.clone().acquire_many_owned(2).await.unwrap()
    }

    pub(crate) async fn list(&self) -> Vec<RunningCompaction> {
        let request = ListCompactionsRequest { header: header() };
        self.client.clone().list_compactions(request).await.unwrap().into_inner().jobs
    }
}

pub(crate) fn header() -> Option<CallHeader> {
    let cluster_id = CLUSTER.to_string();
    Some(CallHeader { cluster_id, source_node: SOURCE, target_node: NODE, catalog_revision: 0 })
}

pub(crate) fn compact_request(
    handle: &str,
    plan: tidewater_proto::compaction::v1::CompactionPlan,
) -> CompactRequest {
    CompactRequest { header: header(), handle: handle.to_owned(), plan: Some(plan), attempt: 1 }
}

pub(crate) fn refusal<T: std::fmt::Debug>(reply: Result<T, Status>) -> Refusal {
    Refusal::from_status(&reply.unwrap_err())
}

fn dir_of(spec: &RegionSpec) -> tidewater_proto::v1::ManifestRegionDir {
    tidewater_proto::v1::ManifestRegionDir {
        table_id: spec.table_id.get(),
        region_id: spec.region_id.get(),
        incarnation: spec.incarnation.get(),
    }
}

pub(crate) fn owner(term: u64) -> OwnerEpoch {
    OwnerEpoch { move_epoch: 0, term: Term(term) }
}

/// A region with one file per element of `rows`, owned in term 1.
pub(crate) async fn region(
    storage: Storage,
    id: u64,
    rows: &[std::ops::Range<i64>],
) -> Arc<Region> {
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(SystemIds);
    let env =
        RegionEnv::new(storage, clock, ids, MemoryBudget::new(64 << 20), EngineOptions::default());
    let key = ColumnId(1);
    let name = "n".to_owned();
    let data_type = ColumnType::Int64;
    let columns = vec![Column { id: key, name, data_type, nullable: false, default: None }];
    let schema = TableSchema::new(SchemaVersion(1), columns, vec![key], None, ColumnId(2)).unwrap();
    let spec = RegionSpec {
        region_id: RegionId(id),
        table_id: TableId(1),
        incarnation: Incarnation(1),
        schema,
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
        parents: Vec::new(),
    };
    let region = Region::new(env, spec, Sequence(1), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    for rows in rows {
        flush(&region, rows.clone()).await;
    }
    region
}

/// Writes one more file.
pub(crate) async fn flush(region: &Region, rows: std::ops::Range<i64>) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let sequence = Sequence(region.last_sequence().get() + 65_536);
    region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch }).unwrap();
    region.flush().await.unwrap();
}

pub(crate) async fn take_ownership(region: &Region, term: u64) {
    region.take_ownership(owner(term), GROUP).await.unwrap();
}

/// Plan of a compaction of all files of the region into one run.
pub(crate) async fn plan(region: &Arc<Region>) -> CompactionPlan {
    let planned = region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    planned.plan().clone()
}

pub(crate) async fn job() -> CompactionJob {
    let region = region(Storage::memory(), 5, &[0..10, 5..15]).await;
    let planned = region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    planned.job().clone()
}

/// Rows of the region, as its manifest lists them now.
pub(crate) async fn rows(region: &Region) -> Vec<i64> {
    region.load().await.unwrap();
    let batches = region.scan(&ScanOptions::all(vec![ColumnId(1)])).unwrap();
    let batches: Vec<RecordBatch> = batches.try_collect().await.unwrap();
    let column =
        |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(column).collect()
}

/// Events of a job up to the last one.
pub(crate) async fn all_events(mut stream: Streaming<CompactionEvent>) -> Vec<Event> {
    let mut events = Vec::new();
    let all = async {
        while let Some(event) = stream.message().await.unwrap() {
            events.push(event.event.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap();
    events
}

/// Reason of a failed job, and whether its manifest may be written.
pub(crate) async fn failed(stream: Streaming<CompactionEvent>) -> (Reason, bool) {
    match all_events(stream).await.pop() {
        Some(Event::Failed(failed)) => (failed.reason(), failed.manifest_may_be_written),
        other => panic!("{other:?}"),
    }
}

/// Last event of a committed job.
pub(crate) async fn committed(stream: Streaming<CompactionEvent>) -> CompactionCommitted {
    match all_events(stream).await.pop() {
        Some(Event::Committed(committed)) => committed,
        other => panic!("{other:?}"),
    }
}

/// Waits for a condition.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waits).await.unwrap();
}
