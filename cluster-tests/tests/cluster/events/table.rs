//! Rows of the events table, read by a client of this process.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use serde_json::Value;
use tidewater_client::{Client, ClientError, ScanSpec};
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::clock::{Clock, SystemClock};

/// Name of the table.
pub(super) const EVENTS: &str = "events";

/// Limit for an event to be written: a batch whose retries have failed, e.g. before data nodes are up, pauses for 30 s.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(90);

/// Reader of the events table.
#[derive(Debug, Clone)]
pub(super) struct EventTable {
    client: Client,
}

impl EventTable {
    pub(super) async fn connect(cluster: &Cluster) -> Result<Self> {
        let client = Client::connect(options(cluster)).await;
        let client = client.map_err(|error| HarnessError::violated(error.to_string()))?;
        Ok(Self { client })
    }

    /// Returns all rows as JSON objects, with the time in nanoseconds and without nulls. There are none before the table
    /// exists.
    pub(super) async fn rows(&self) -> Result<Vec<Value>, String> {
        let batches = match self.client.scan(ScanSpec::all(EVENTS)).await {
            Ok(stream) => stream.collect().await,
            Err(ClientError::TableNotFound(_)) => return Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let batches = batches.map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        for batch in &batches {
            rows.extend(documents(batch).map_err(|error| error.to_string())?);
        }
        Ok(rows)
    }

    /// Waits for a row that `is_wanted` accepts, and returns the first one.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait::until(&format!("the table has {what}"), WRITTEN_WITHIN, || async {
            let rows = self.rows().await?;
            let found = rows.iter().find(|row| is_wanted(row)).cloned();
            found.ok_or_else(|| format!("types {:?}", types(&rows)))
        })
        .await
    }
}

/// Returns the types of rows, each once.
fn types(rows: &[Value]) -> Vec<&str> {
    let mut types: Vec<_> = rows.iter().filter_map(|row| row["type"].as_str()).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// Returns the time of this machine, nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> i64 {
    i64::try_from(SystemClock.now_ms() * 1_000_000).unwrap_or(i64::MAX)
}

/// Returns the time of a row, nanoseconds since the Unix epoch.
pub(super) fn time_of(row: &Value) -> i64 {
    row["timestamp"].as_i64().unwrap_or_default()
}

/// Returns the id of a row, or of a line of a command: 32 hexadecimal digits.
pub(super) fn id_of(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().replace('-', "").to_lowercase()
}

fn documents(batch: &RecordBatch) -> Result<Vec<Value>, ArrowError> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_payload = field.name() == "payload";
        let column = match field.data_type() {
            // The text of a time has fractions of different lengths.
            DataType::Timestamp(_, _) => cast(column, &DataType::Int64)?,
            // Other binary values are written in hexadecimal digits.
            DataType::Binary if is_payload => cast(column, &DataType::Utf8)?,
            _ => Arc::clone(column),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    let document = |line: &str| {
        serde_json::from_str(line).map_err(|error| ArrowError::ExternalError(Box::new(error)))
    };
    let mut rows: Vec<Value> = text.lines().map(document).collect::<Result<_, _>>()?;
    for row in &mut rows {
        let payload = row["payload"].as_str().and_then(|text| serde_json::from_str(text).ok());
        if let Some(payload) = payload {
            row["payload"] = payload;
        }
    }
    Ok(rows)
}
