//! Reader of one region in a task of its own, a little ahead of its consumer.

use std::sync::Arc;

use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::region::{RegionRange, RegionReadError, RegionScanSpec, RegionStream, ScanEvent};
use crate::core::Core;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::{LeaderSearch, OperationLimits};

/// Number of messages that are fetched ahead.
const READ_AHEAD: usize = 2;

/// A region being read.
#[derive(Debug)]
pub(super) struct RegionReader {
    pub(super) region_range: RegionRange,
    items: mpsc::Receiver<Result<ScanEvent, RegionReadError>>,
    _task: AbortOnDropHandle<()>,
}

impl RegionReader {
    pub(super) fn start(core: Arc<Core>, spec: RegionScanSpec, region_range: RegionRange) -> Self {
        let (sender, items) = mpsc::channel(READ_AHEAD);
        let task = tokio::spawn(read_region(core, spec, region_range.clone(), sender));
        Self { region_range, items, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns the next event. There is none after [`ScanEvent::End`] or an error.
    pub(super) async fn next(&mut self) -> Result<ScanEvent, RegionReadError> {
        self.items.recv().await.unwrap_or_else(|| {
            Err(RegionReadError::Failed(FailedAttempt {
                refusal: Refusal::new(Reason::Internal, "the reader task ended unexpectedly"),
                effect: Effect::None,
                unanswered: true,
            }))
        })
    }
}

async fn read_region(
    core: Arc<Core>,
    spec: RegionScanSpec,
    region_range: RegionRange,
    out: mpsc::Sender<Result<ScanEvent, RegionReadError>>,
) {
    let (mut rows, first) = match open_until_first_event(&core, &spec, &region_range).await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = out.send(Err(error)).await;
            return;
        }
    };
    let mut item = Ok(first);
    loop {
        let last = matches!(item, Err(_) | Ok(ScanEvent::End));
        if out.send(item).await.is_err() || last {
            return;
        }
        item = rows.next().await;
    }
}

/// Opens the stream and waits for its first event; until then it can be reopened.
async fn open_until_first_event(
    core: &Core,
    spec: &RegionScanSpec,
    region_range: &RegionRange,
) -> Result<(RegionStream, ScanEvent), RegionReadError> {
    let limits = OperationLimits::of(&core.router.options);
    let mut search = LeaderSearch::new(region_range.route.group);
    let mut attempts = Attempts::default();
    loop {
        let error = match RegionStream::open(core, &mut search, spec, region_range).await {
            Ok(mut rows) => match rows.next().await {
                Ok(item) => return Ok((rows, item)),
                Err(error) => error,
            },
            Err(failure) => RegionReadError::Failed(failure),
        };
        let RegionReadError::Failed(failure) = error else { return Err(error) };
        attempts.record(&failure);
        let wait = core.router.wait(&mut search, &failure);
        match failure.retry_action() {
            RetryAction::RefreshCatalog => return Err(RegionReadError::StaleRoute(failure)),
            RetryAction::Stop | RetryAction::NewProducer => {
                return Err(RegionReadError::Failed(failure));
            }
            RetryAction::RetryFew if attempts.has_too_many_faults() => {
                return Err(RegionReadError::Failed(failure));
            }
            RetryAction::Retry | RetryAction::RetryFew | RetryAction::FindLeader => {
                if limits.exhausted(attempts.made(), wait) {
                    return Err(RegionReadError::Failed(failure));
                }
            }
        }
        tokio::time::sleep(wait).await;
    }
}
