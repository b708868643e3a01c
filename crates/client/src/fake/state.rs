//! State of the fake nodes and scripts of their responses.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use tidewater_common::catalog_hint::{CatalogHint, RegionPresence, ServedRegion};
use tidewater_common::ids::{ColumnId, Epoch, GroupId, RegionId, SchemaVersion, TableId};
use tidewater_common::keys::{KeyCodec, KeyRange, global_key, table_range};
use tidewater_common::refusal::{Leader, Refusal};
use tidewater_common::rows::decode_batch;
use tidewater_common::schema::{Column, ColumnType, SchemaChange, TableOptions, TableSchema};
use tidewater_proto::v1::{self, Reason, RowOp, WriteRequest};

use crate::catalog::TableInfo;

pub(crate) const TABLE: TableId = TableId(7);

/// Scripted response of a data node to its next write, or adoption of files.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Applies the write and succeeds.
    Normal,
    /// Returns this error without applying the write.
    Refuse(Refusal),
    /// Applies the write and returns the error of a broken connection.
    DoAndLose,
    /// Returns the error of a broken connection without applying the write.
    Lose,
    /// Never responds.
    Freeze,
    /// Applies the write and returns this error.
    DoAndRefuse(Refusal),
    /// Forgets all producers, then applies the write.
    Forget,
    /// Forgets all producers, receives all opening writes again, then applies the write.
    ForgetAndReopen,
    /// Splits the region without updating the catalog, then applies the write; refuses an adoption.
    Split { region: u64, at: i64, children: (u64, u64) },
}

/// Scripted response of a data node to its next scan of a region.
#[derive(Debug, Clone)]
pub(crate) enum ScanAnswer {
    /// Sends all rows and the end marker.
    Normal,
    /// Returns this error.
    Refuse(Refusal),
    /// Never responds.
    Freeze,
    /// Ends the stream after this number of messages, without the end marker.
    CutAfter(usize),
    /// Sends messages without rows, without end.
    EmptyForEver,
    /// Sends nothing for this time, then all rows and the end marker.
    Pause(Duration),
}

/// Events that the meta node sends to watchers when it is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchMode {
    /// The whole catalog.
    Snapshots,
    /// The last delta.
    Deltas,
    /// The current revision, without the changes.
    KeepAlive,
    /// Nothing.
    Silent,
    /// The error of a broken connection.
    Broken,
}

/// Scripted response of the meta node to its next call for changes.
#[derive(Debug, Clone)]
pub(crate) enum ChangesAnswer {
    /// Returns this error.
    Refuse(Refusal),
    /// Returns this page.
    Page(v1::GetCatalogChangesResponse),
    /// Never answers.
    Never,
}

#[derive(Debug, Clone)]
struct Producer {
    opening: u64,
    serial: u64,
    keys: Vec<Vec<u8>>,
}

pub(crate) struct State {
    pub(crate) catalog: v1::CatalogSnapshot,
    /// Served regions; the catalog may lag behind.
    pub(crate) regions: BTreeMap<u64, KeyRange>,
    /// Schema of the regions; the catalog may lag behind.
    pub(crate) schema: TableSchema,
    pub(crate) leader: u64,
    /// Group that serves all routes; no node hosts another one.
    pub(crate) group: u64,
    /// Number of reads that were refused because they named another group.
    pub(crate) reads_of_other_groups: u32,
    pub(crate) addresses: HashMap<u64, String>,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) scan_answers: VecDeque<ScanAnswer>,
    pub(crate) meta_refusals: VecDeque<Refusal>,
    pub(crate) watch_mode: WatchMode,
    /// Number of watches that were refused because their revision was ahead.
    pub(crate) watches_ahead: u32,
    /// Opened watches.
    pub(crate) watches: usize,
    /// Changes of the catalog that the meta node keeps.
    pub(crate) deltas: Vec<v1::CatalogDelta>,
    pub(crate) changes_answers: VecDeque<ChangesAnswer>,
    /// Number of calls for the whole catalog.
    pub(crate) snapshots_read: u32,
    /// Calls for changes.
    pub(crate) changes_read: Vec<v1::GetCatalogChangesRequest>,
    /// Errors of the next administrative calls; later calls succeed.
    pub(crate) admin_refusals: VecDeque<Refusal>,
    pub(crate) next_timestamp: u64,
    /// Errors that the next compactions send in their streams; later ones have nothing to do.
    pub(crate) compaction_refusals: VecDeque<Refusal>,
    /// Members of the meta group.
    pub(crate) members: Vec<v1::MetaMember>,
    /// Errors of the next changes of the members; later ones succeed without an effect.
    pub(crate) member_refusals: VecDeque<Refusal>,
    /// All received writes.
    pub(crate) writes: Vec<WriteRequest>,
    pub(crate) scans: Vec<v1::ScanRequest>,
    /// Row ids of each written file.
    pub(crate) files: BTreeMap<Bytes, Vec<i64>>,
    /// Calls that wrote files.
    pub(crate) files_written: Vec<v1::WriteFilesRequest>,
    /// All received calls to adopt files.
    pub(crate) adoptions: Vec<v1::AdoptFilesRequest>,
    /// All received calls to begin a load or keep it alive.
    pub(crate) load_begins: Vec<v1::BeginLoadRequest>,
    /// All received calls to end a load.
    pub(crate) load_ends: Vec<v1::EndLoadRequest>,
    /// Key and value (`None`: deleted) of each row in the order of application.
    pub(crate) effects: Vec<(i64, Option<String>)>,
    producers: HashMap<(u64, Bytes, u64), Producer>,
    sequence: u64,
}

pub(crate) fn schema() -> TableSchema {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.into(),
        data_type,
        nullable,
        default: None,
    };
    TableSchema::new(
        SchemaVersion(1),
        vec![column(1, "id", ColumnType::Int64, false), column(2, "v", ColumnType::Utf8, true)],
        vec![ColumnId(1)],
        None,
        ColumnId(3),
    )
    .unwrap()
}

/// Returns the schema after an alter that adds a column `w` with default 7.
pub(crate) fn altered_schema() -> TableSchema {
    let add = SchemaChange::AddColumn {
        name: "w".to_owned(),
        data_type: ColumnType::Int64,
        nullable: true,
        default: Some("7".to_owned()),
    };
    schema().altered(&[add]).unwrap()
}

/// Returns the values of `w` in rows that were encoded for the altered schema.
pub(crate) fn added_values(schema_version: u32, rows: &Bytes) -> Vec<i64> {
    assert_eq!(schema_version, 2);
    let rows = decode_batch(rows, &altered_schema().arrow()).unwrap();
    rows.column(2).as_primitive::<Int64Type>().values().to_vec()
}

pub(crate) fn table_info() -> TableInfo {
    let schema = schema();
    let options = TableOptions::upsert();
    let codec = KeyCodec::new(&schema, &options).unwrap();
    let state = v1::TableState::Active;
    TableInfo {
        id: TABLE,
        name: "t".into(),
        state,
        schema,
        options,
        codec,
        published: Epoch(0),
        complete: Epoch(0),
    }
}

/// Returns rows with these ids; the value of id 5 is `v5`.
pub(crate) fn rows(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let values: Vec<String> = ids.iter().map(|id| format!("v{id}")).collect();
    RecordBatch::try_new(
        schema().arrow(),
        vec![Arc::new(Int64Array::from(ids)), Arc::new(StringArray::from(values))],
    )
    .unwrap()
}

/// Returns keys with these ids.
pub(crate) fn keys(ids: &[i64]) -> RecordBatch {
    let ids = Arc::new(Int64Array::from(ids.to_vec()));
    RecordBatch::try_new(schema().key_arrow(), vec![ids]).unwrap()
}

pub(crate) fn row_key(id: i64) -> Vec<u8> {
    let key = keys(&[id]);
    table_info().codec.row_key(key.columns(), 0).unwrap()
}

impl State {
    pub(crate) fn new(bounds: &[i64]) -> Self {
        let info = table_info();
        let mut regions = BTreeMap::new();
        let mut start = Vec::new();
        for (id, bound) in (100..).zip(bounds) {
            let end = row_key(*bound);
            regions.insert(id, KeyRange::new(start, Some(end.clone())));
            start = end;
        }
        regions.insert(100 + bounds.len() as u64, KeyRange::new(start, None));
        let mut state = Self {
            catalog: v1::CatalogSnapshot {
                cluster_id: "018f3c1e-0000-7000-8000-000000000001".into(),
                incarnation: 1,
                revision: 1,
                catalog_version: 1,
                tables: vec![v1::Table {
                    table_id: TABLE.get(),
                    name: "t".into(),
                    state: v1::TableState::Active.into(),
                    schema: Some((&info.schema).into()),
                    options: Some((&info.options).into()),
                    ..Default::default()
                }],
                routes: Vec::new(),
                groups: vec![v1::Group { group_id: 1, leader: 11, ..Default::default() }],
                nodes: Vec::new(),
                hooks: Vec::new(),
                has_table_changes: true,
                next_route_id: 0,
            },
            regions,
            schema: info.schema.clone(),
            leader: 11,
            group: 1,
            reads_of_other_groups: 0,
            addresses: HashMap::new(),
            answers: VecDeque::new(),
            scan_answers: VecDeque::new(),
            meta_refusals: VecDeque::new(),
            watch_mode: WatchMode::Snapshots,
            watches: 0,
            watches_ahead: 0,
            deltas: Vec::new(),
            changes_answers: VecDeque::new(),
            snapshots_read: 0,
            changes_read: Vec::new(),
            admin_refusals: VecDeque::new(),
            next_timestamp: 1,
            compaction_refusals: VecDeque::new(),
            members: Vec::new(),
            member_refusals: VecDeque::new(),
            writes: Vec::new(),
            scans: Vec::new(),
            files: BTreeMap::new(),
            files_written: Vec::new(),
            adoptions: Vec::new(),
            load_begins: Vec::new(),
            load_ends: Vec::new(),
            effects: Vec::new(),
            producers: HashMap::new(),
            sequence: 0,
        };
        state.publish_routes();
        state
    }

    pub(crate) fn add_node(&mut self, node_id: u64, address: String) {
        self.addresses.insert(node_id, address.clone());
        self.catalog.nodes.push(v1::Node {
            node_id,
            role: v1::NodeRole::Data.into(),
            address,
            state: v1::NodeState::Up.into(),
            ..v1::Node::default()
        });
        self.catalog.groups[0].voters.push(node_id);
        self.catalog.revision += 1;
    }

    /// Updates the catalog's routes to the served regions.
    pub(crate) fn publish_routes(&mut self) {
        self.catalog.routes = self
            .regions
            .iter()
            .map(|(id, range)| v1::Route {
                route_id: *id,
                start: global_key(TABLE, &range.start).into(),
                end: match &range.end {
                    Some(end) => Some(global_key(TABLE, end).into()),
                    None => table_range(TABLE).end.map(Into::into),
                },
                group_id: self.group,
                ..Default::default()
            })
            .collect();
        self.catalog.routes.sort_by(|a, b| a.start.cmp(&b.start));
        self.catalog.revision += 1;
        self.catalog.catalog_version += 1;
    }

    /// Lets group 2 serve all routes: the catalog learns of it, and that group 1 is retired, when it is published.
    pub(crate) fn move_to_another_group(&mut self) {
        self.group = 2;
        let first = &mut self.catalog.groups[0];
        let second = v1::Group { group_id: 2, ..first.clone() };
        first.state = v1::GroupState::Retired.into();
        first.voters.clear();
        first.leader = 0;
        self.catalog.groups.push(second);
        self.publish_routes();
    }

    /// Updates the catalog's table to the schema of the regions.
    pub(crate) fn publish_schema(&mut self) {
        self.catalog.tables[0].schema = Some((&self.schema).into());
        let upserts = vec![self.catalog.tables[0].clone()];
        self.publish_delta(v1::CatalogDelta { table_upserts: upserts, ..Default::default() });
    }

    /// Adds a change without routes to the catalog's history.
    pub(crate) fn publish_delta(&mut self, delta: v1::CatalogDelta) {
        self.catalog.revision += 1;
        let version = self.catalog.catalog_version;
        self.deltas.push(v1::CatalogDelta {
            revision: self.catalog.revision,
            previous_catalog_version: version,
            catalog_version: version,
            ..delta
        });
    }

    /// Returns the changes since a revision, by the rules of a meta node.
    pub(crate) fn changes_since(&self, revision: u64) -> v1::GetCatalogChangesResponse {
        let deltas: Vec<_> =
            self.deltas.iter().filter(|delta| delta.revision > revision).cloned().collect();
        let is_whole = self.catalog.revision.checked_sub(revision) == Some(deltas.len() as u64);
        v1::GetCatalogChangesResponse {
            revision: self.catalog.revision,
            deltas: if is_whole { deltas } else { Vec::new() },
            snapshot_needed: !is_whole,
        }
    }

    /// Refuses a call that does not name the schema of the regions.
    pub(crate) fn check_schema(&self, region: u64, version: u32) -> Result<(), Refusal> {
        if version == self.schema.version().get() {
            return Ok(());
        }
        let served = ServedRegion {
            table: TABLE,
            schema_version: self.schema.version(),
            group: GroupId(1),
            range: self.regions.get(&region).cloned(),
        };
        let presence = RegionPresence::Served(served);
        let hint = CatalogHint::Region { region: RegionId(region), presence };
        Err(Refusal::new(Reason::SchemaVersionStale, "the table was altered").catalog_hint(hint))
    }

    /// Replaces a region by two children, which inherit the producers of their parent.
    pub(crate) fn split(&mut self, region: u64, at: i64, children: (u64, u64)) {
        let range = self.regions.remove(&region).unwrap();
        let middle = row_key(at);
        self.regions.insert(children.0, KeyRange::new(range.start, Some(middle.clone())));
        self.regions.insert(children.1, KeyRange::new(middle, range.end));
        let known: Vec<_> = self
            .producers
            .iter()
            .filter(|((parent, _, _), _)| *parent == region)
            .map(|((_, id, origin), producer)| (id.clone(), *origin, producer.clone()))
            .collect();
        for (id, origin, producer) in known {
            for child in [children.0, children.1] {
                self.producers.insert((child, id.clone(), origin), producer.clone());
            }
        }
    }

    pub(crate) fn forget_producers(&mut self) {
        self.producers.clear();
    }

    pub(crate) fn not_leader(&self, node: u64) -> Option<Refusal> {
        (node != self.leader).then(|| {
            let address = self.addresses[&self.leader].clone();
            let leader = Leader { node_id: self.leader.into(), address };
            Refusal::new(Reason::NotLeader, "this node does not lead group 1").leader(Some(leader))
        })
    }

    pub(crate) fn region(&self, id: u64) -> Result<&KeyRange, Refusal> {
        self.regions.get(&id).ok_or_else(|| {
            Refusal::new(Reason::RegionNotFound, format!("group 1 serves no region {id}"))
        })
    }

    /// Applies a write by the rules of a data node.
    pub(crate) fn apply(&mut self, write: &WriteRequest) -> Result<v1::WriteResponse, Refusal> {
        let range = self.region(write.region_id)?.clone();
        self.check_schema(write.region_id, write.schema_version)?;
        let (ids, written) = decode_write(write, &self.schema);
        let row_keys: Vec<Vec<u8>> = ids.iter().map(|id| row_key(*id)).collect();
        assert!(row_keys.is_sorted(), "rows must come in key order");
        assert_eq!(ids.len(), write.row_count as usize);
        if row_keys.iter().any(|key| !range.contains(key)) {
            return Err(Refusal::new(Reason::KeyOutsideRegion, "rows are outside the region"));
        }
        let name = (write.region_id, write.producer_id.clone(), write.origin_region_id);
        self.sequence += 1;
        let opens = write.serial == 1;
        assert_eq!(opens, write.opening == 0, "every write except an opening one names an opening");
        let known = self.producers.get(&name);
        if !opens && known.is_some_and(|producer| producer.opening != write.opening) {
            return Err(Refusal::new(Reason::ProducerForgotten, "another opening"));
        }
        let opening = known.map_or(self.sequence, |producer| producer.opening);
        let last = known.map(|producer| producer.serial);
        let repeated = last == Some(write.serial);
        match last {
            None if write.serial == 1 => {}
            None => return Err(Refusal::new(Reason::ProducerForgotten, "producer unknown")),
            Some(last) if write.serial == last || write.serial == last + 1 => {}
            Some(_) => return Err(Refusal::new(Reason::SerialOutOfOrder, "serial out of order")),
        }
        let covered = if repeated { known.unwrap().keys.clone() } else { Vec::new() };
        for ((id, value), key) in written.into_iter().zip(&row_keys) {
            if !covered.contains(key) {
                self.effects.push((id, value));
            }
        }
        let keys = covered.into_iter().chain(row_keys).collect();
        self.producers.insert(name, Producer { opening, serial: write.serial, keys });
        let sequence = if opens { opening } else { self.sequence };
        Ok(v1::WriteResponse { sequence, rows_applied: write.row_count, repeated })
    }

    /// Ids of the applied rows in ascending order; an id applied repeatedly is repeated.
    pub(crate) fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.effects.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Ids of the live rows in a key range, in key order.
    pub(crate) fn contents(&self, range: &KeyRange) -> Vec<i64> {
        let mut live = BTreeMap::new();
        for (id, value) in &self.effects {
            live.insert(*id, value.is_some());
        }
        live.into_iter()
            .filter(|(id, live)| *live && range.contains(&row_key(*id)))
            .map(|(id, _)| id)
            .collect()
    }
}

type Written = Vec<(i64, Option<String>)>;

fn decode_write(write: &WriteRequest, schema: &TableSchema) -> (Vec<i64>, Written) {
    if write.rows.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let delete = write.op() == RowOp::Delete;
    let schema = if delete { schema.key_arrow() } else { schema.arrow() };
    let batch = decode_batch(&write.rows, &schema).unwrap();
    let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    let written = ids
        .iter()
        .enumerate()
        .map(|(row, id)| {
            let value = (!delete).then(|| {
                let values = batch.column(1).as_any().downcast_ref::<StringArray>().unwrap();
                values.value(row).to_owned()
            });
            (*id, value)
        })
        .collect();
    (ids, written)
}
