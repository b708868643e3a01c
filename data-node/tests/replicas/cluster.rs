//! Nodes without a meta service: the tests start, stop and call them directly.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use futures::StreamExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ClusterId, ColumnId, GroupId, NodeId, RegionId, SchemaVersion, TableId,
};
use tidewater_common::keys::global_key;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::{decode_batch, encode_batch};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_data_node::catalog::WatchedCatalog;
use tidewater_data_node::compactors::Compactors;
use tidewater_data_node::control::ControlService;
use tidewater_data_node::data::DataService;
use tidewater_data_node::group_records::GroupRecords;
use tidewater_data_node::groups::{Groups, NodeContext};
use tidewater_data_node::hooks::NodeHooks;
use tidewater_data_node::node_events::NodeEvents;
use tidewater_data_node::options::GroupOptions;
use tidewater_data_node::region_admin::RegionAdminService;
use tidewater_events::EventRecorderRef;
use tidewater_hook_kinds::{EventTables, HookAccess};
use tidewater_proto::v1::data_server::Data;
use tidewater_proto::v1::group_control_server::GroupControl;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::*;
use tidewater_raft_store::{
    DataDirectory, LogStoreOptions, NetworkFactory, RaftHost, RaftService, Role,
};
use tidewater_region_engine::compaction::CompactionOptions;
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::hooks::HookHome;
use tidewater_region_engine::hooks::HookKinds;
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Plugins};
use tidewater_rpc::AddressBook;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use uuid::Uuid;

pub(crate) const GROUP: u64 = 5;
pub(crate) const REGION: u64 = 7;
/// Time limit of a condition.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

thread_local! {
    /// Sequences of opening writes, by producer. A test runs on one thread and outlives its nodes.
    static OPENINGS: RefCell<HashMap<Bytes, u64>> = RefCell::default();
}

pub(crate) fn cluster_id() -> ClusterId {
    ClusterId(Uuid::from_u128(77))
}

pub(crate) fn store_id() -> Uuid {
    Uuid::from_u128(78)
}

/// Returns the built-in hook kinds; hooks may write to the temporary directory.
pub(crate) fn hook_kinds() -> HookKinds {
    let access = HookAccess::new(Some(&std::env::temp_dir()), None, false, &[]).unwrap();
    tidewater_hook_kinds::builtin(access)
}

/// Creates hooks of a node with all built-in kinds and no configured hook.
pub(crate) fn no_hooks(id: u64) -> Arc<NodeHooks> {
    let home = HookHome { role: "data", node_id: NodeId(id) };
    Arc::new(NodeHooks::new(hook_kinds(), home, Plugins::default()))
}

/// Configuration of a node, kept over restarts.
pub(crate) struct NodeConfig {
    pub(crate) id: u64,
    pub(crate) folder: PathBuf,
    pub(crate) storage: Storage,
    pub(crate) options: GroupOptions,
    pub(crate) memory: u64,
    pub(crate) compaction: CompactionOptions,
    pub(crate) listen: String,
    pub(crate) hooks: Arc<NodeHooks>,
    pub(crate) recorder: EventRecorderRef,
}

/// Record of the group that the meta group would return.
#[derive(Debug, Default)]
pub(crate) struct TestRecords(pub(crate) Mutex<Option<Group>>);

#[tonic::async_trait]
impl GroupRecords for TestRecords {
    async fn read(&self, _: GroupId) -> Result<Option<Group>, Refusal> {
        Ok(self.0.lock().unwrap().clone())
    }
}

/// Returns the record of an active table.
fn table(table_id: u32) -> Table {
    Table {
        table_id,
        state: TableState::Active.into(),
        schema: region().schema,
        options: region().options,
        ..Table::default()
    }
}

/// The catalog of the tests, of a meta node that does not publish changes of tables: the region, a
/// second one that may be a copy of it, and data nodes.
fn catalog(nodes: &[GroupMember]) -> Event {
    let route = |route_id, table: u32| Route {
        route_id,
        start: global_key(TableId(table), &[]).into(),
        end: Some(global_key(TableId(table + 1), &[]).into()),
        group_id: GROUP,
        ..Route::default()
    };
    let node = |member: &GroupMember| tidewater_proto::v1::Node {
        node_id: member.node_id,
        role: NodeRole::Data.into(),
        address: member.address.clone(),
        state: NodeState::Up.into(),
        boot: 0,
        draining: false,
        replacement_id: 0,
    };
    let group = Group { group_id: GROUP, state: GroupState::Active.into(), ..Group::default() };
    Event::Snapshot(CatalogSnapshot {
        revision: 1,
        incarnation: 1,
        tables: vec![table(3), table(4)],
        routes: vec![route(REGION, 3), route(REGION + 1, 4)],
        groups: vec![group],
        nodes: nodes.iter().map(node).collect(),
        ..CatalogSnapshot::default()
    })
}

/// A running node.
pub(crate) struct Node {
    pub(crate) groups: Arc<Groups>,
    pub(crate) data: DataService,
    pub(crate) control: ControlService,
    pub(crate) admin: RegionAdminService,
    pub(crate) address: String,
    /// The catalog that the node's watch would deliver.
    pub(crate) catalog: Arc<WatchedCatalog>,
    pub(crate) records: Arc<TestRecords>,
    directory: Arc<DataDirectory>,
    server: Server,
}

/// The gRPC server of a node, with the tasks of its connections: they hold the directory of the node,
/// and other nodes keep their connections open.
struct Server(Option<tokio::runtime::Runtime>);

impl Server {
    fn start(router: tonic::transport::server::Router, listener: TcpListener) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self(Some(runtime))
    }

    /// Closes the connections, and waits until nothing of the server is left.
    async fn stop(mut self) {
        let runtime = self.0.take().unwrap();
        let stopped = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LIMIT));
        stopped.await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    /// Starts the node and the groups in its directory.
    pub(crate) async fn start(config: &NodeConfig) -> Self {
        let folder = config.folder.clone();
        let id = NodeId(config.id);
        let directory = tokio::task::spawn_blocking(move || {
            let options = LogStoreOptions::default();
            let mut directory = DataDirectory::open(folder, Role::Data, options).unwrap();
            directory.adopt(cluster_id(), id).unwrap();
            Arc::new(directory)
        })
        .await
        .unwrap();
        let host = RaftHost::new(cluster_id(), id, directory.log_store().clone());
        let raft_service = RaftService::new();
        raft_service.add_host(host.clone());
        let addresses = Arc::new(AddressBook::new());
        host.set_addresses(addresses.clone());
        let env = RegionEnv::new(
            config.storage.clone(),
            Arc::new(SystemClock),
            Arc::new(SystemIds),
            MemoryBudget::new(config.memory),
            EngineOptions { compaction: config.compaction.clone(), ..EngineOptions::default() },
        );
        let watched = Arc::new(WatchedCatalog::default());
        watched.follow(&catalog(&[]));
        host.set_records(watched.clone());
        let records = Arc::new(TestRecords::default());
        let groups = Groups::new(NodeContext {
            cluster: cluster_id(),
            node: id,
            directory: directory.clone(),
            host,
            network: NetworkFactory::new(cluster_id(), id, addresses),
            env,
            compactors: Compactors::new(cluster_id(), id, store_id(), config.hooks.clone()),
            catalog: watched.clone(),
            cluster_level: Arc::default(),
            records: records.clone(),
            events: NodeEvents::new(
                id,
                config.recorder.clone(),
                EventTables::default(),
                Duration::ZERO,
                Arc::new(SystemClock),
            ),
            options: config.options.clone(),
        });
        let data = DataService::new(groups.clone(), CancellationToken::new());
        let control = ControlService::new(groups.clone());
        let listener = TcpListener::bind(&config.listen).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = tonic::transport::Server::builder()
            .add_service(raft_service.into_server())
            .add_service(control.clone().into_server());
        let server = Server::start(router, listener);
        groups.start_local().await.unwrap();
        let admin = RegionAdminService::new(groups.clone());
        let catalog = watched;
        Self { groups, data, control, admin, address, catalog, records, directory, server }
    }

    /// Stops everything: for other nodes, a crash. The directory may be opened again.
    pub(crate) async fn stop(self) {
        self.groups.stop_all().await;
        self.server.stop().await;
        let store = self.directory.log_store().clone();
        tokio::task::spawn_blocking(move || store.shutdown()).await.unwrap();
    }

    pub(crate) fn header(&self) -> Option<CallHeader> {
        Some(CallHeader {
            cluster_id: cluster_id().to_string(),
            source_node: 0,
            target_node: self.groups.context().node.get(),
            catalog_revision: 0,
        })
    }

    /// Lets the node's catalog have these data nodes.
    pub(crate) fn know(&self, nodes: &[GroupMember]) {
        self.catalog.follow(&catalog(nodes));
    }

    /// Lets the node's catalog have these changes of the table's routes in progress.
    pub(crate) fn know_changes(&self, route_changes: Vec<RouteChange>) {
        let table = Table { route_changes, ..table(3) };
        let delta =
            CatalogDelta { revision: 2, table_upserts: vec![table], ..CatalogDelta::default() };
        self.catalog.follow(&Event::Delta(delta));
    }

    /// Lets children replace routes in the node's catalog: the swap of a split or merge. Their row keys: from the
    /// start to the end, if there is one.
    pub(crate) fn swap_routes(&self, removed: &[u64], children: &[(u64, Bytes, Option<Bytes>)]) {
        let route = |(id, start, end): &(u64, Bytes, Option<Bytes>)| Route {
            route_id: *id,
            start: global_key(TableId(3), start).into(),
            end: Some(match end {
                Some(end) => global_key(TableId(3), end).into(),
                None => global_key(TableId(4), &[]).into(),
            }),
            group_id: GROUP,
            ..Route::default()
        };
        let delta = CatalogDelta {
            revision: 2,
            table_upserts: vec![table(3)],
            route_deletes: removed.to_vec(),
            route_upserts: children.iter().map(route).collect(),
            ..CatalogDelta::default()
        };
        self.catalog.follow(&Event::Delta(delta));
    }

    /// Removes the region's route from the node's catalog, as the swap of a split does, and the change of its route.
    pub(crate) fn forget_region(&self) {
        self.swap_routes(&[REGION], &[]);
    }

    pub(crate) fn member(&self) -> GroupMember {
        GroupMember { node_id: self.groups.context().node.get(), address: self.address.clone() }
    }

    /// Starts the replica, as a call that agrees with the catalog does.
    pub(crate) async fn start_group(&self, members: &[GroupMember], initialize: bool) {
        let addresses = self.groups.context().network.addresses();
        for member in members {
            addresses.set_if_absent(NodeId(member.node_id), &member.address);
        }
        let replica = self.groups.start(GroupId(GROUP)).await.unwrap();
        if initialize {
            let member = |member: &GroupMember| {
                (member.node_id, tidewater_raft_store::Member::new(member.address.clone()))
            };
            self.groups.initialize(&replica, members.iter().map(member).collect()).await.unwrap();
        }
    }

    /// Opens the region; refused if this node does not lead.
    pub(crate) async fn open_region(&self) -> Result<(), Refusal> {
        let request = OpenRegionRequest {
            header: self.header(),
            group_id: GROUP,
            region: Some(region()),
            base: 0,
        };
        self.control.open_region(Request::new(request)).await.map(|_| ()).map_err(Refusal::from)
    }

    /// Names the producer's opening like a client, unless the write already names one.
    pub(crate) async fn write(&self, mut write: WriteRequest) -> Result<WriteResponse, Refusal> {
        let producer = write.producer_id.clone();
        let opens = write.serial == 1;
        if !opens && write.opening == 0 {
            let known = OPENINGS.with_borrow(|openings| openings.get(&producer).copied());
            write.opening = known.unwrap_or(1);
        }
        let reply = self
            .data
            .write(Request::new(write))
            .await
            .map(tonic::Response::into_inner)
            .map_err(Refusal::from)?;
        if opens {
            OPENINGS.with_borrow_mut(|openings| openings.insert(producer, reply.sequence));
        }
        Ok(reply)
    }

    /// All ids, read by a linearizable scan.
    pub(crate) async fn scan(&self) -> Result<Vec<i64>, Refusal> {
        self.scan_of(REGION).await
    }

    /// Returns the ids of a region's rows.
    pub(crate) async fn scan_of(&self, region_id: u64) -> Result<Vec<i64>, Refusal> {
        let request = ScanRequest {
            group_id: GROUP,
            region_id,
            schema_version: 1,
            projection: vec![1, 2],
            ..Default::default()
        };
        self.scan_with(request).await
    }

    /// Returns the ids of the rows of a scan.
    pub(crate) async fn scan_with(&self, request: ScanRequest) -> Result<Vec<i64>, Refusal> {
        let mut stream = self.data.scan(Request::new(request)).await?.into_inner();
        let mut ids = Vec::new();
        let mut done = false;
        while let Some(message) = stream.next().await {
            let message = message?;
            assert!(!done, "nothing follows the last message");
            done = message.done;
            if !message.rows.is_empty() {
                let batch = decode_batch(&message.rows, &schema().arrow()).unwrap();
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                ids.extend(column.values());
            }
        }
        assert!(done, "the stream ends with its last message");
        Ok(ids)
    }

    /// Number of rows of a region with this schema; `None` if the count fails.
    pub(crate) async fn count(&self, region_id: u64) -> Option<u64> {
        let request = ScanRequest {
            group_id: GROUP,
            region_id,
            schema_version: 1,
            count_only: true,
            ..Default::default()
        };
        let stream = self.data.scan(Request::new(request)).await.ok()?.into_inner();
        let messages: Vec<_> = stream.collect().await;
        messages.into_iter().map(|message| message.ok().map(|message| message.row_count)).sum()
    }

    pub(crate) async fn get(&self, ids: &[i64]) -> Result<Vec<i64>, Refusal> {
        self.get_of(REGION, ids).await
    }

    /// Reads rows of a region by their ids.
    pub(crate) async fn get_of(&self, region_id: u64, ids: &[i64]) -> Result<Vec<i64>, Refusal> {
        let keys = RecordBatch::try_new(
            schema().key_arrow(),
            vec![Arc::new(Int64Array::from(ids.to_vec()))],
        )
        .unwrap();
        let request = GetRequest {
            group_id: GROUP,
            region_id,
            schema_version: 1,
            keys: encode_batch(&keys).unwrap(),
            projection: vec![1, 2],
            ..Default::default()
        };
        let response = self.data.get(Request::new(request)).await?.into_inner();
        let batch = decode_batch(&response.rows, &schema().arrow()).unwrap();
        let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        Ok(column.values().to_vec())
    }

    pub(crate) async fn flush(&self) -> Result<FlushRegionResponse, Refusal> {
        let request = FlushRegionRequest { group_id: GROUP, region_id: REGION, by_node: false };
        let reply = self.admin.flush_region(Request::new(request)).await;
        reply.map(tonic::Response::into_inner).map_err(Refusal::from)
    }

    /// Compacts all files; returns the last event and the number of events before it.
    pub(crate) async fn compact(&self) -> Result<(CompactRegionEvent, usize), Refusal> {
        self.compact_at(CompactionPlace::Any).await
    }

    /// Like [`compact`](Self::compact), at the given place.
    pub(crate) async fn compact_at(
        &self,
        place: CompactionPlace,
    ) -> Result<(CompactRegionEvent, usize), Refusal> {
        let place = place.into();
        let request = CompactRegionRequest {
            group_id: GROUP,
            region_id: REGION,
            place,
            ..Default::default()
        };
        let reply = self.admin.compact_region(Request::new(request)).await?;
        let events: Vec<_> = reply.into_inner().collect().await;
        let events: Vec<CompactRegionEvent> = events.into_iter().collect::<Result<_, _>>()?;
        let (last, before) = events.split_last().unwrap();
        assert!(last.done && before.iter().all(|event| !event.done));
        Ok((last.clone(), before.len()))
    }

    /// Information of this node about the region.
    pub(crate) async fn info(&self) -> Option<RegionInfo> {
        self.info_of(REGION).await
    }

    pub(crate) async fn info_of(&self, region: u64) -> Option<RegionInfo> {
        let request =
            ListRegionsRequest { include_followers: true, with_digest: true, ..Default::default() };
        let reply = self.admin.list_regions(Request::new(request)).await.unwrap();
        reply.into_inner().regions.into_iter().find(|info| info.region_id == region)
    }

    pub(crate) fn leads(&self) -> bool {
        self.leads_group(GROUP)
    }

    pub(crate) fn leads_group(&self, group: u64) -> bool {
        self.groups.get(GroupId(group)).is_ok_and(|replica| replica.leadership().is_leader)
    }

    pub(crate) fn hosts_region(&self) -> bool {
        self.groups
            .get(GroupId(GROUP))
            .is_ok_and(|replica| replica.region(RegionId(REGION)).is_ok())
    }
}

pub(crate) fn schema() -> TableSchema {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    TableSchema::new(
        SchemaVersion(1),
        vec![column(1, "id", ColumnType::Int64, false), column(2, "name", ColumnType::Utf8, true)],
        vec![ColumnId(1)],
        None,
        ColumnId(3),
    )
    .unwrap()
}

pub(crate) fn region() -> RegionDescriptor {
    let options = TableOptions::append_only();
    RegionDescriptor {
        region_id: REGION,
        table_id: 3,
        table_name: "t".to_owned(),
        start: Bytes::new(),
        end: None,
        schema: Some((&schema()).into()),
        options: Some((&options).into()),
        incarnation: 1,
    }
}

/// A write of a producer; serial 1 has no rows.
pub(crate) fn write(producer: u8, serial: u64, ids: &[i64]) -> WriteRequest {
    let rows = if ids.is_empty() {
        Bytes::new()
    } else {
        let names: Vec<String> = ids.iter().map(|id| format!("name {id}")).collect();
        let batch = RecordBatch::try_new(
            schema().arrow(),
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(names))],
        )
        .unwrap();
        encode_batch(&batch).unwrap()
    };
    WriteRequest {
        group_id: GROUP,
        region_id: REGION,
        catalog_version: 1,
        schema_version: 1,
        producer_id: Bytes::copy_from_slice(&[producer; 16]),
        serial,
        origin_region_id: REGION,
        op: RowOp::Put.into(),
        row_count: ids.len() as u32,
        rows,
        opening: 0,
    }
}

/// Waits for a condition.
pub(crate) async fn until(expected: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "timed out: {expected}");
}
