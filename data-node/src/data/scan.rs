//! `Scan`: one confirmation by the quorum, then a bounded stream over a pinned version.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use tidewater_common::ids::{ColumnId, GroupId, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::first_part;
use tidewater_proto::v1::{self, Reason, RowsFormat, ScanRequest, ScanResponse};
use tidewater_region_engine::{CompareOp, Predicate, RowStream, ScanOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{ScanStream, format};
use crate::group::admission;
use crate::group::hosted::HostedRegion;
use crate::group::shared::ReplicaState;
use crate::groups::Groups;

/// Batches buffered for a slow client.
const BUFFER: usize = 2;
/// A batch above this size is sent in parts, well below the message limit.
const MESSAGE_TARGET: usize = 8 * 1024 * 1024;
/// Maximum number of rows of a batch.
const BATCH_ROWS: usize = 8_192;

pub(super) async fn call(
    groups: &Groups,
    scans: &Arc<Semaphore>,
    request: ScanRequest,
) -> Result<ScanStream, Refusal> {
    let options = &groups.context().options;
    admission::check_numbers(&[
        ("catalog_version", request.catalog_version),
        ("limit", request.limit.unwrap_or(0)),
    ])?;
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let hosted = replica.region(RegionId(request.region_id))?;
    admission::check_schema(&hosted.descriptor, request.schema_version)?;
    let permit = scans.clone().try_acquire_owned().map_err(|_| {
        Refusal::new(
            Reason::Overloaded,
            format!("{} scans are open on this node (maximum): retry later", options.open_scans),
        )
        .retry_after(std::time::Duration::from_millis(500))
    })?;
    replica.confirm(options.read_deadline).await?;
    // Looked up again: the region may have been dropped, or replaced by a snapshot, during the
    // confirmation.
    let hosted = replica.region(RegionId(request.region_id))?;
    admission::check_schema(&hosted.descriptor, request.schema_version)?;
    replica.check_published(&hosted)?;
    let count_only = request.count_only;
    let rows_format = format::requested(request.rows_format)?;
    let scan = scan_options(request)?;
    if count_only {
        return tokio::time::timeout(options.scan_lifetime, count(&replica.shared, &hosted, scan))
            .await
            .map_err(|_| scan_life_exceeded("count"))?;
    }
    let rows = hosted.region.scan(&scan).map_err(|error| Refusal::from(&error))?;
    let rows = reload_on_missing_file(rows, &replica.shared, hosted.descriptor.region_id);
    let (sender, receiver) = mpsc::channel(BUFFER);
    let deadline = Instant::now() + options.scan_lifetime;
    tokio::spawn(send(rows, rows_format, sender, deadline, permit));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Passes the rows on. On a missing file, the region's manifest is read again, since garbage
/// collection deleted the file after its replacement was committed, and the client retries.
fn reload_on_missing_file(
    rows: RowStream,
    shared: &Arc<ReplicaState>,
    region: RegionId,
) -> RowStream {
    let shared = shared.clone();
    rows.inspect_err(move |error| shared.handle_read_error(region, error)).boxed()
}

async fn count(
    shared: &ReplicaState,
    hosted: &HostedRegion,
    scan: ScanOptions,
) -> Result<ScanStream, Refusal> {
    let rows = hosted.region.count(&scan).await.map_err(|error| {
        shared.handle_read_error(hosted.descriptor.region_id, &error);
        Refusal::from(&error)
    })?;
    let last = ScanResponse { row_count: rows, done: true, ..Default::default() };
    Ok(Box::pin(futures::stream::iter([Ok(last)])))
}

/// Ends when the client disconnects, which closes the channel. The channel is watched between
/// batches too: a filter that matches no row would otherwise read the whole region without a
/// reader.
async fn send(
    mut rows: RowStream,
    rows_format: RowsFormat,
    sender: mpsc::Sender<Result<ScanResponse, Status>>,
    deadline: Instant,
    permit: OwnedSemaphorePermit,
) {
    let sent = async {
        while let Some(next) = rows.next().await {
            let messages = match next {
                Ok(batch) => messages(&batch, rows_format),
                Err(error) => Err(Refusal::from(&error)),
            };
            match messages {
                Ok(messages) => {
                    for message in messages {
                        if sender.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(refusal) => {
                    let _ = sender.send(Err(refusal.into())).await;
                    return;
                }
            }
        }
        let done = ScanResponse { done: true, ..Default::default() };
        let _ = sender.send(Ok(done)).await;
    };
    tokio::select! {
        () = sent => {}
        () = sender.closed() => {}
        () = tokio::time::sleep_until(deadline) => {
            // Does not wait for a client that stopped reading.
            let _ = sender.try_send(Err(scan_life_exceeded("scan").into()));
        }
    }
    drop(permit);
}

fn scan_life_exceeded(operation: &str) -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!("the {operation} exceeded the time limit of a scan: read smaller key ranges"),
    )
}

/// Splits a batch into one or more messages. The batch is measured before encoding, so that at most
/// one message is held twice.
fn messages(batch: &RecordBatch, rows_format: RowsFormat) -> Result<Vec<ScanResponse>, Refusal> {
    let mut messages = Vec::new();
    let mut rest = 0..batch.num_rows();
    while !rest.is_empty() {
        let count = first_part(batch.columns(), rest.clone(), MESSAGE_TARGET);
        let rows = format::encode(&batch.slice(rest.start, count), rows_format)?;
        messages.push(ScanResponse { rows, row_count: count as u64, done: false });
        rest.start += count;
    }
    Ok(messages)
}

fn scan_options(request: ScanRequest) -> Result<ScanOptions, Refusal> {
    Ok(ScanOptions {
        projection: request.projection.into_iter().map(ColumnId).collect(),
        range: KeyRange { start: request.start.to_vec(), end: request.end.map(|end| end.to_vec()) },
        predicates: request.predicates.into_iter().map(predicate).collect::<Result<_, _>>()?,
        limit: request.limit,
        batch_rows: BATCH_ROWS,
        as_of: None,
    })
}

fn predicate(wire: v1::Predicate) -> Result<Predicate, Refusal> {
    let op = match v1::CompareOp::try_from(wire.op) {
        Ok(v1::CompareOp::Eq) => CompareOp::Eq,
        Ok(v1::CompareOp::Ne) => CompareOp::Ne,
        Ok(v1::CompareOp::Lt) => CompareOp::Lt,
        Ok(v1::CompareOp::Le) => CompareOp::Le,
        Ok(v1::CompareOp::Gt) => CompareOp::Gt,
        Ok(v1::CompareOp::Ge) => CompareOp::Ge,
        Ok(v1::CompareOp::In) => CompareOp::In,
        Ok(v1::CompareOp::IsNull) => CompareOp::IsNull,
        Ok(v1::CompareOp::IsNotNull) => CompareOp::IsNotNull,
        Ok(v1::CompareOp::Unspecified) | Err(_) => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!("unknown comparison {} in a predicate", wire.op),
            ));
        }
    };
    Ok(Predicate { column: ColumnId(wire.column_id), op, values: wire.values })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, BinaryArray, RecordBatchOptions};
    use arrow::datatypes::Schema;
    use futures::stream;
    use tidewater_common::rows::decode_batch;

    use super::*;

    /// A scan whose predicates match no row: it keeps reading and yields nothing.
    fn endless() -> RowStream {
        stream::pending().boxed()
    }

    fn begin(
        scans: &Arc<Semaphore>,
        life: Duration,
    ) -> mpsc::Receiver<Result<ScanResponse, Status>> {
        let permit = scans.clone().try_acquire_owned().unwrap();
        let (sender, receiver) = mpsc::channel(BUFFER);
        tokio::spawn(send(endless(), RowsFormat::Batch, sender, Instant::now() + life, permit));
        receiver
    }

    #[tokio::test(start_paused = true)]
    async fn scan_without_matches_ends_when_its_client_disconnects() {
        let scans = Arc::new(Semaphore::new(1));
        let life = Duration::from_secs(30 * 60);
        let client = begin(&scans, life);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scans.available_permits(), 0, "the client is connected");
        drop(client);
        let freed = tokio::time::timeout(Duration::from_secs(1), scans.acquire()).await;
        assert!(freed.is_ok(), "the scan ended with its client");
    }

    #[tokio::test(start_paused = true)]
    async fn expired_scan_reports_an_exceeded_deadline() {
        let scans = Arc::new(Semaphore::new(1));
        let mut client = begin(&scans, Duration::from_secs(60));
        let refusal = Refusal::from(client.recv().await.unwrap().unwrap_err());
        assert_eq!(refusal.reason, Reason::DeadlineExceeded);
        assert!(client.recv().await.is_none());
        assert_eq!(scans.available_permits(), 1);
    }

    #[test]
    fn large_batch_is_split_by_bytes() {
        // The large rows are adjacent.
        let rows: Vec<Vec<u8>> = (0..64_usize)
            .map(|row| vec![b'x'; if (16..32).contains(&row) { 3 << 20 } else { 10 }])
            .collect();
        let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(&rows));
        let batch = RecordBatch::try_from_iter([("body", column)]).unwrap();
        let parts = messages(&batch, RowsFormat::Batch).unwrap();
        // Two of the large rows fit in a message, together with the adjacent small ones.
        assert_eq!(parts.len(), 8);
        let mut back = Vec::new();
        for part in parts {
            assert!(part.rows.len() <= MESSAGE_TARGET + 4_096, "{} bytes", part.rows.len());
            let decoded = decode_batch(&part.rows, &batch.schema()).unwrap();
            assert_eq!(decoded.num_rows() as u64, part.row_count);
            back.push(decoded);
        }
        let back = arrow::compute::concat_batches(&batch.schema(), &back).unwrap();
        assert!(back == batch);
    }

    #[test]
    fn rows_without_columns_fit_one_message() {
        let options = RecordBatchOptions::new().with_row_count(Some(5));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
                .unwrap();
        let parts = messages(&batch, RowsFormat::Batch).unwrap();
        assert_eq!((parts.len(), parts[0].row_count), (1, 5));
    }
}
