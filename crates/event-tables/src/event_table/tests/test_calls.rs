//! Calls for a table in memory.

use arrow::array::RecordBatch;
use parking_lot::{Mutex, MutexGuard};
use tidewater_client::NewTable;
use tidewater_client::admin::NewColumn;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_common::keys::KeyCodec;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1;

use super::*;
use crate::table::EVENT_KEY;
use crate::testing::{column, events_table, schema_of, table_options};

/// Effect of a change of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Done,
    /// The call succeeds, and another node changes the table back.
    Lost,
    Refused(Reason),
}

/// Note of a write with this number, as the client judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    Valid(u8),
    OtherRows(u8),
    OtherTable,
    Damaged,
}

impl Note {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Valid(number) => vec![0, number],
            Self::OtherRows(number) => vec![1, number],
            Self::OtherTable => vec![2],
            Self::Damaged => vec![3],
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// `None`: it is missing.
    pub(super) table: Option<Arc<TableInfo>>,
    pub(super) change: Change,
    /// Calls that create or alter the table.
    pub(super) changes: u32,
    pub(super) level: FeatureLevel,
    pub(super) levels_read: u32,
    /// Number of readings after which the cluster has the level of events tables.
    pub(super) raised_after: Option<u32>,
    /// Rows of the last write that was resumed.
    pub(super) resumed: Option<RecordBatch>,
    pub(super) fenced: Vec<u64>,
    pub(super) fence_refused: bool,
}

#[derive(Debug)]
pub(super) struct TestCalls(Mutex<State>);

impl Default for TestCalls {
    fn default() -> Self {
        Self(Mutex::new(State {
            table: None,
            change: Change::Done,
            changes: 0,
            level: FeatureLevel::FIRST,
            levels_read: 0,
            raised_after: None,
            resumed: None,
            fenced: Vec::new(),
            fence_refused: false,
        }))
    }
}

fn info(schema: TableSchema) -> Arc<TableInfo> {
    let options = table_options();
    let codec = KeyCodec::new(&schema, &options).unwrap();
    let state = v1::TableState::Active;
    let name = "events".to_owned();
    let id = TableId(7);
    Arc::new(TableInfo {
        id,
        name,
        state,
        schema,
        options,
        codec,
        published: Epoch(0),
        complete: Epoch(0),
    })
}

fn refused(reason: Reason) -> ClientError {
    let refusal = Box::new(Refusal::new(reason, "injected"));
    ClientError::Refused { what: "a call".to_owned(), refusal }
}

impl TestCalls {
    /// Returns the calls for an events table with further columns.
    pub(super) fn with_table(extra: &[(&str, &str)]) -> Self {
        let calls = Self::default();
        calls.state().table = Some(info(events_table(extra)));
        calls
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn change(&self, schema: TableSchema) -> Result<(), ClientError> {
        let mut state = self.state();
        state.changes += 1;
        match state.change {
            Change::Done => state.table = Some(info(schema)),
            Change::Lost => {}
            Change::Refused(reason) => return Err(refused(reason)),
        }
        Ok(())
    }
}

#[async_trait]
impl TableCalls for TestCalls {
    type Write = u64;
    type Noted = u64;

    async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError> {
        let table = self.state().table.clone();
        table.ok_or_else(|| ClientError::TableNotFound(name.to_owned()))
    }

    async fn feature_level(&self) -> Result<FeatureLevel, ClientError> {
        let mut state = self.state();
        if state.raised_after == Some(state.levels_read) {
            state.level = FeatureLevel::EVENT_TABLES;
        }
        state.levels_read += 1;
        Ok(state.level)
    }

    async fn create_table(&self, new: NewTable) -> Result<(), ClientError> {
        let columns = new.columns.iter();
        let columns = columns.map(|added| column(&added.name, &added.data_type, added.nullable));
        self.change(schema_of(columns.collect(), &EVENT_KEY))
    }

    async fn add_columns(&self, table: &str, columns: Vec<NewColumn>) -> Result<(), ClientError> {
        let mut all = self.table(table).await?.schema.columns().to_vec();
        all.extend(columns.iter().map(|new| column(&new.name, &new.data_type, new.nullable)));
        self.change(schema_of(all, &EVENT_KEY))
    }

    async fn open(
        &self,
        _table: Arc<TableInfo>,
        _rows: RecordBatch,
    ) -> Result<(u64, Vec<u8>), ClientError> {
        Err(refused(Reason::Unsupported))
    }

    fn resume(
        &self,
        _table: Arc<TableInfo>,
        note: &[u8],
        rows: &RecordBatch,
    ) -> Result<u64, NotResumed<u64>> {
        self.state().resumed = Some(rows.clone());
        match *note {
            [0, number] => Ok(number.into()),
            [1, number] => {
                let problem = "their number differs".to_owned();
                Err(NotResumed::OtherRows { problem, write: number.into() })
            }
            [2] => Err(NotResumed::OtherTable),
            _ => Err(NotResumed::Damaged("injected".to_owned())),
        }
    }

    async fn send(&self, _write: u64) -> Result<Sent, ClientError> {
        Err(refused(Reason::Unsupported))
    }

    async fn fence(&self, write: u64) -> Result<(), ClientError> {
        let mut state = self.state();
        if state.fence_refused {
            return Err(refused(Reason::NotLeader));
        }
        state.fenced.push(write);
        Ok(())
    }

    async fn get(
        &self,
        _table: &str,
        _keys: &RecordBatch,
        _columns: &[String],
    ) -> Result<RecordBatch, ClientError> {
        Err(refused(Reason::Unsupported))
    }

    async fn put_as(
        &self,
        _table: Arc<TableInfo>,
        _row: RecordBatch,
        _producer: ProducerId,
    ) -> Result<(), ClientError> {
        Err(refused(Reason::Unsupported))
    }
}
