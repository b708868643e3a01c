//! `Scan`: one confirmation by the quorum, then a bounded stream over a pinned version.

pub(super) mod arguments;
mod messages;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowsFormat, ScanRequest, ScanResponse};
use tidewater_region_engine::read::memory::ByteLease;
use tidewater_region_engine::{RowStream, ScanOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use self::arguments::scan_options;
use self::messages::{BatchParts, LeasedMessage, MessageStream};
use super::callers::{OpenScan, ScanLimits};
use super::{ScanStream, format};
use crate::group::admission;
use crate::group::hosted::HostedRegion;
use crate::group::shared::ReplicaState;
use crate::groups::Groups;

/// Messages buffered for a slow client.
const BUFFER: usize = 2;
/// Longest wait for the memory of long arguments.
const ARGUMENTS_WAIT: Duration = Duration::from_secs(5);

/// Starts a scan for the caller at `peer`.
pub(super) async fn call(
    groups: &Groups,
    limits: &ScanLimits,
    peer: Option<SocketAddr>,
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
    let argument_bytes = arguments::check(&request)?;
    let open = limits.admit(peer)?;
    let arguments = match argument_bytes {
        Some(bytes) => {
            let lease = open.account.arguments.lease(bytes, bytes, ARGUMENTS_WAIT).await;
            Some(lease.map_err(|error| Refusal::from(&error))?)
        }
        None => None,
    };
    replica.confirm(options.read_deadline).await?;
    // Looked up again: the region may have been dropped, or replaced by a snapshot, during the
    // confirmation.
    let hosted = replica.region(RegionId(request.region_id))?;
    admission::check_schema(&hosted.descriptor, request.schema_version)?;
    replica.check_published(&hosted)?;
    let count_only = request.count_only;
    let rows_format = format::requested(request.rows_format)?;
    let scan = scan_options(request, open.account.clone())?;
    if count_only {
        return tokio::time::timeout(options.scan_lifetime, count(&replica.shared, &hosted, scan))
            .await
            .map_err(|_| scan_life_exceeded("count"))?;
    }
    let rows = hosted.region.scan(&scan).map_err(|error| Refusal::from(&error))?;
    let rows = reload_on_missing_file(rows, &replica.shared, hosted.descriptor.region_id);
    let (sender, receiver) = mpsc::channel(BUFFER);
    let deadline = Instant::now() + options.scan_lifetime;
    let running = RunningScan { rows, rows_format, open, _arguments: arguments };
    tokio::spawn(running.send(sender, deadline));
    Ok(Box::pin(MessageStream::new(receiver)))
}

/// A scan whose rows are sent.
struct RunningScan {
    rows: RowStream,
    rows_format: RowsFormat,
    open: OpenScan,
    /// Memory of the arguments.
    _arguments: Option<ByteLease>,
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

impl RunningScan {
    /// Ends when the client disconnects, which closes the channel. The channel is watched between
    /// batches too: a filter that matches no row would otherwise read the whole region without a
    /// reader.
    async fn send(mut self, sender: mpsc::Sender<SentMessage>, deadline: Instant) {
        tokio::select! {
            () = self.send_rows(&sender) => {}
            () = sender.closed() => {}
            () = tokio::time::sleep_until(deadline) => {
                // Does not wait for a client that stopped reading.
                let _ = sender.try_send(Err(scan_life_exceeded("scan").into()));
            }
        }
    }

    /// Releases the memory of the sources, for which other scans need not wait until the reader has taken
    /// the last messages.
    fn close_sources(&mut self) {
        self.rows = futures::stream::empty().boxed();
    }

    async fn send_rows(&mut self, sender: &mpsc::Sender<SentMessage>) {
        let messages = self.open.account.messages.clone();
        while let Some(next) = self.rows.next().await {
            let mut parts = match next {
                Ok(batch) => BatchParts::new(batch),
                Err(error) => {
                    self.close_sources();
                    let _ = sender.send(Err(Refusal::from(&error).into())).await;
                    return;
                }
            };
            loop {
                let message = match parts.next(self.rows_format, &messages).await {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) => break,
                    Err(refusal) => Err(refusal.into()),
                };
                let failed = message.is_err();
                if sender.send(message).await.is_err() || failed {
                    return;
                }
            }
        }
        self.close_sources();
        let message = ScanResponse { done: true, ..Default::default() };
        let _ = sender.send(Ok(LeasedMessage { message, lease: None })).await;
    }
}

/// A message or the error that ends the scan.
type SentMessage = Result<LeasedMessage, Status>;

fn scan_life_exceeded(operation: &str) -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!("the {operation} exceeded the time limit of a scan: read smaller key ranges"),
    )
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::stream;
    use tidewater_region_engine::read::memory::ScanMemory;

    use super::*;

    /// A scan whose predicates match no row: it keeps reading and yields nothing.
    fn endless() -> RowStream {
        stream::pending().boxed()
    }

    fn limits() -> ScanLimits {
        ScanLimits::new(1, Arc::new(ScanMemory::new(1 << 20)))
    }

    fn begin(limits: &ScanLimits, life: Duration) -> mpsc::Receiver<SentMessage> {
        let open = limits.admit(None).unwrap();
        let (sender, receiver) = mpsc::channel(BUFFER);
        let rows_format = RowsFormat::Batch;
        let scan = RunningScan { rows: endless(), rows_format, open, _arguments: None };
        tokio::spawn(scan.send(sender, Instant::now() + life));
        receiver
    }

    #[tokio::test(start_paused = true)]
    async fn scan_without_matches_ends_when_its_client_disconnects() {
        let limits = limits();
        let client = begin(&limits, Duration::from_secs(30 * 60));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(limits.admit(None).is_err(), "the client is connected");
        drop(client);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(limits.admit(None).is_ok(), "the scan ended with its client");
    }

    #[tokio::test(start_paused = true)]
    async fn sources_close_before_the_last_messages_are_taken() {
        let memory = Arc::new(ScanMemory::new(1 << 20));
        let limits = ScanLimits::new(1, memory.clone());
        let open = limits.admit(None).unwrap();
        let held = open.account.sources.lease(4_096, 0, Duration::ZERO).await.unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
        let rows = stream::iter(vec![Ok(batch); BUFFER]).map(move |batch| {
            let _ = &held;
            batch
        });
        let (sender, mut receiver) = mpsc::channel(BUFFER);
        let rows_format = RowsFormat::Batch;
        let scan = RunningScan { rows: rows.boxed(), rows_format, open, _arguments: None };
        tokio::spawn(scan.send(sender, Instant::now() + Duration::from_secs(60)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(memory.sources().used(), 0);
        for _ in 0..BUFFER {
            assert!(!receiver.recv().await.unwrap().unwrap().message.done);
        }
        assert!(receiver.recv().await.unwrap().unwrap().message.done);
    }

    #[tokio::test(start_paused = true)]
    async fn expired_scan_reports_an_exceeded_deadline() {
        let limits = limits();
        let mut client = begin(&limits, Duration::from_secs(60));
        let refusal = Refusal::from(client.recv().await.unwrap().unwrap_err());
        assert_eq!(refusal.reason, Reason::DeadlineExceeded);
        assert!(client.recv().await.is_none());
        assert!(limits.admit(None).is_ok());
    }
}
