//! `Scan`: one confirmation by the quorum, then a bounded stream over a pinned version.

pub(super) mod arguments;
mod chained;
mod messages;
mod timer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowsFormat, ScanRequest, ScanResponse};
use tidewater_region_engine::read::memory::{ByteLease, Excess, READER_STALLED_AFTER};
use tidewater_region_engine::region::PointReadOptions;
use tidewater_region_engine::{RowStream, ScanOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use self::arguments::scan_options;
use self::chained::chained;
use self::messages::{BatchParts, LeasedMessage, MessageStream};
use self::timer::ScanTimer;
use super::as_of::{self, as_of};
use super::callers::{OpenScan, ScanLimits};
use super::{ScanStream, format};
use crate::group::admission;
use crate::group::hosted::HostedRegion;
use crate::group::shared::ReplicaState;
use crate::groups::Groups;
use crate::meters;

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
    admission::served(&hosted.descriptor, request.schema_version)?;
    let timer = ScanTimer::start(groups.context().events.clone(), hosted.descriptor.dir());
    let argument_bytes = arguments::check(&request)?;
    let open = limits.admit(peer)?;
    let arguments = match argument_bytes {
        Some(bytes) => {
            let lease = open.account.arguments.lease(bytes, bytes, ARGUMENTS_WAIT).await;
            Some(lease.map_err(|error| timer.count_refusal(Refusal::from(&error)))?)
        }
        None => None,
    };
    let known =
        as_of::confirm(groups, &replica, &hosted, request.as_of, options.read_deadline).await?;
    // Looked up again: the region may have been dropped, or replaced by a snapshot, during the
    // confirmation.
    let count_only = request.count_only;
    let rows_format = format::requested(request.rows_format)?;
    let mut serving = Vec::new();
    for hosted in replica.serving(RegionId(request.region_id))? {
        let descriptor = admission::served(&hosted.descriptor, request.schema_version)?;
        let shape = Some(descriptor.shape().clone());
        replica.check_published(&hosted)?;
        let as_of = as_of(&replica, &hosted, known, request.as_of)?;
        serving.push((hosted, PointReadOptions { as_of, shape }));
    }
    for (hosted, _) in &serving {
        // Its keys are no place to split: a scan reads all of them.
        hosted.load.record_reads(1, |_| None);
    }
    let mut scan = scan_options(request, open.account.clone())?;
    // A region that has replaced several has rows of others, too.
    scan.range = scan.range.intersection(&hosted.descriptor.range);
    if count_only {
        return tokio::time::timeout(options.scan_lifetime, count(&replica.shared, serving, scan))
            .await
            .map_err(|_| scan_life_exceeded("count"))?;
    }
    let limit = scan.limit;
    let mut parts = Vec::with_capacity(serving.len());
    // All of them pin their rows now.
    for (hosted, PointReadOptions { as_of, shape }) in serving {
        let scan = ScanOptions { as_of, shape, ..scan.clone() };
        let rows = hosted.region.scan(&scan).map_err(|error| Refusal::from(&error))?;
        parts.push(reload_on_missing_file(rows, &replica.shared, hosted.descriptor.region_id));
    }
    let rows = chained(parts, limit);
    let (sender, receiver) = mpsc::channel(BUFFER);
    let deadline = Instant::now() + options.scan_lifetime;
    let open = Arc::new(open);
    let messages = MessageStream::new(receiver, open.clone());
    let running = RunningScan { rows, rows_format, open, timer, _arguments: arguments };
    tokio::spawn(running.send(sender, deadline));
    Ok(Box::pin(messages))
}

/// A scan whose rows are sent.
struct RunningScan {
    rows: RowStream,
    rows_format: RowsFormat,
    open: Arc<OpenScan>,
    timer: ScanTimer,
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
    serving: Vec<(HostedRegion, PointReadOptions)>,
    scan: ScanOptions,
) -> Result<ScanStream, Refusal> {
    let mut rows = 0_u64;
    for (hosted, PointReadOptions { as_of, shape }) in serving {
        let scan = ScanOptions { as_of, shape, ..scan.clone() };
        rows += hosted.region.count(&scan).await.map_err(|error| {
            shared.handle_read_error(hosted.descriptor.region_id, &error);
            Refusal::from(&error)
        })?;
    }
    let rows = scan.limit.map_or(rows, |limit| rows.min(limit));
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

    /// Sends all rows, and after them the end of the scan or its error.
    async fn send_rows(&mut self, sender: &mpsc::Sender<SentMessage>) {
        let last = match self.send_batches(sender).await {
            Ok(()) => {
                let message = ScanResponse { done: true, ..Default::default() };
                Ok(LeasedMessage { message, lease: None })
            }
            Err(refusal) => Err(self.timer.count_refusal(refusal).into()),
        };
        self.close_sources();
        let _ = sender.send(last).await;
    }

    /// Sends the batches until the last, or until the reader has disconnected.
    async fn send_batches(&mut self, sender: &mpsc::Sender<SentMessage>) -> Result<(), Refusal> {
        let account = self.open.account.clone();
        loop {
            self.timer.resume();
            let batch = self.rows.next().await;
            self.timer.pause();
            let Some(batch) = batch else { return Ok(()) };
            let mut parts = BatchParts::new(batch.map_err(|error| Refusal::from(&error))?);
            while let Some(message) = parts.next(self.rows_format, &account.messages).await? {
                if !send_message(&account.excess, sender, message).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Waits until the reader has room for a message; returns false if it has disconnected. A scan that has
/// excess keeps others from it, and waits no longer than a reader may take nothing.
async fn send_message(
    excess: &Excess,
    sender: &mpsc::Sender<SentMessage>,
    message: LeasedMessage,
) -> Result<bool, Refusal> {
    let sent = sender.send(Ok(message));
    if !excess.is_held() {
        return Ok(sent.await.is_ok());
    }
    let sent = tokio::time::timeout(READER_STALLED_AFTER, sent).await;
    sent.map(|sent| sent.is_ok()).map_err(|_| {
        meters::count_stalled_scan();
        reader_too_slow()
    })
}

/// A message or the error that ends the scan.
type SentMessage = Result<LeasedMessage, Status>;

fn scan_life_exceeded(operation: &str) -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!("the {operation} exceeded the time limit of a scan: read smaller key ranges"),
    )
}

fn reader_too_slow() -> Refusal {
    let stalled = READER_STALLED_AFTER.as_secs();
    let text = format!(
        "rows take more than the memory of scans, and the reader took no message for {stalled} s: read \
         faster, or fewer columns"
    );
    Refusal::new(Reason::DeadlineExceeded, text)
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
        let open = Arc::new(limits.admit(None).unwrap());
        let (sender, receiver) = mpsc::channel(BUFFER);
        let rows_format = RowsFormat::Batch;
        let rows = endless();
        let timer = ScanTimer::unrecorded();
        let scan = RunningScan { rows, rows_format, open, timer, _arguments: None };
        tokio::spawn(scan.send(sender, Instant::now() + life));
        receiver
    }

    /// A batch of this number of rows.
    fn batch(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("k", column)]).unwrap()
    }

    /// Starts a scan that sends these batches.
    fn send(open: OpenScan, rows: RowStream) -> MessageStream {
        let open = Arc::new(open);
        let (sender, receiver) = mpsc::channel(BUFFER);
        let messages = MessageStream::new(receiver, open.clone());
        let rows_format = RowsFormat::Batch;
        let timer = ScanTimer::unrecorded();
        let scan = RunningScan { rows, rows_format, open, timer, _arguments: None };
        tokio::spawn(scan.send(sender, Instant::now() + Duration::from_secs(30 * 60)));
        messages
    }

    #[tokio::test(start_paused = true)]
    async fn scan_is_open_until_its_messages_are_dropped() {
        let memory = Arc::new(ScanMemory::new(16 << 20));
        let limits = ScanLimits::new(16, memory.clone());
        let peer = Some("10.0.0.1:5000".parse().unwrap());
        let mut unread = Vec::new();
        while let Ok(open) = limits.admit(peer) {
            // A message of about 1 MiB and the end of the scan: both are in the buffer.
            unread.push(send(open, stream::iter([Ok(batch(1 << 17))]).boxed()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(unread.len() <= 8, "a connection has half of all scans");
        }
        assert_eq!(unread.len(), 8);
        let used = memory.messages().used();
        assert!(used > 1 << 20 && used <= 3 << 20, "a connection has half of 6 MiB: {used}");
        unread.pop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(limits.admit(peer).is_ok());
        drop(unread);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn unread_scan_above_the_memory_ends() {
        for above in [true, false] {
            let memory = Arc::new(ScanMemory::new(16 << 20));
            let limits = ScanLimits::new(2, memory.clone());
            let [open, other] = [(); 2].map(|()| limits.admit(None).unwrap());
            let other = other.account.excess;
            let most = if above { 8 << 20 } else { 4 << 20 };
            let _held = open.account.sources.lease(most, 0, Duration::ZERO).await.unwrap();
            let extra = open.account.excess.charge(4_096, Duration::ZERO).await.unwrap();
            assert_eq!(open.account.excess.is_held(), above);
            let rows = stream::iter(vec![Ok(batch(1)); 2 * BUFFER]).map(move |batch| {
                let _ = &extra;
                batch
            });
            let messages = send(open, rows.boxed());
            tokio::time::sleep(Duration::from_secs(59)).await;
            assert_eq!(other.charge(4_096, Duration::ZERO).await.is_err(), above);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(other.charge(4_096, Duration::ZERO).await.is_ok());
            let ends: Vec<Result<ScanResponse, Status>> = messages.collect().await;
            let last = ends.into_iter().last().unwrap();
            let end =
                last.map(|message| message.done).map_err(|status| Refusal::from(status).reason);
            assert_eq!(end, if above { Err(Reason::DeadlineExceeded) } else { Ok(true) });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sources_close_before_an_error_is_taken() {
        let memory = Arc::new(ScanMemory::new(16 << 20));
        let limits = ScanLimits::new(2, memory.clone());
        let open = limits.admit(None).unwrap();
        let held = open.account.sources.lease(4_096, 0, Duration::ZERO).await.unwrap();
        // The rest suffices for the first messages, which fill the buffer.
        let most = (6 << 20) - (64 << 10);
        let _held = open.account.messages.lease(most, 0, Duration::ZERO).await.unwrap();
        let rows = stream::iter([Ok(batch(1)), Ok(batch(1)), Ok(batch(1 << 17))]);
        let rows = rows.map(move |batch| {
            let _ = &held;
            batch
        });
        let mut messages = send(open, rows.boxed());
        tokio::time::sleep(Duration::from_secs(80)).await;
        assert_eq!(memory.sources().used(), 4_096, "the scan waits for memory");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(memory.sources().used(), 0);
        for _ in 0..BUFFER {
            assert!(messages.next().await.unwrap().is_ok());
        }
        let refused = Refusal::from(messages.next().await.unwrap().unwrap_err());
        assert_eq!(refused.reason, Reason::Overloaded, "{refused}");
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
        let rows = stream::iter(vec![Ok(batch(1)); BUFFER]).map(move |batch| {
            let _ = &held;
            batch
        });
        let mut messages = send(open, rows.boxed());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(memory.sources().used(), 0);
        for _ in 0..BUFFER {
            assert!(!messages.next().await.unwrap().unwrap().done);
        }
        assert!(messages.next().await.unwrap().unwrap().done);
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
