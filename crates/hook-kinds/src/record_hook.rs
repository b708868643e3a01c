//! Hook that converts every call to a record and passes it to a sink.

use std::fmt::Debug;

use async_trait::async_trait;
use tidewater_region_engine::hooks::{HookError, HookHome, RegionEvent, RegionHook};

use crate::record::Record;

/// Destination of records.
#[async_trait]
pub(crate) trait RecordSink: Debug + Send + Sync + 'static {
    /// Accepts a record, or returns why it cannot.
    async fn put(&self, record: Record) -> Result<(), HookError>;

    /// Number of accepted records that have not reached their destination.
    fn backlog(&self) -> u64 {
        0
    }

    /// Number of accepted records that were dropped.
    fn lost(&self) -> u64 {
        0
    }
}

/// Hook that passes a record of every call to a [`RecordSink`].
#[derive(Debug)]
pub(crate) struct RecordHook<S> {
    name: String,
    home: HookHome,
    sink: S,
}

impl<S: RecordSink> RecordHook<S> {
    pub(crate) fn new(name: &str, home: HookHome, sink: S) -> Self {
        Self { name: name.to_owned(), home, sink }
    }
}

#[async_trait]
impl<S: RecordSink> RegionHook for RecordHook<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn backlog(&self) -> u64 {
        self.sink.backlog()
    }

    fn lost(&self) -> u64 {
        self.sink.lost()
    }

    async fn on_event(&self, event: &RegionEvent) -> Result<(), HookError> {
        let columns = event.column_statistics().await;
        self.sink.put(Record::new(&self.name, self.home, event, columns)).await
    }
}
