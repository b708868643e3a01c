//! Task that reads the rows of one region ahead of its consumer.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::region::{ReadError, RegionMessage, RegionRange, RegionRows, ScanPlan};
use crate::core::Core;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::{Limits, Search};

/// Number of messages read ahead.
const READ_AHEAD: usize = 2;

/// Handle of the task that reads a region; dropping it aborts the task.
#[derive(Debug)]
pub(super) struct RegionReader {
    pub(super) region_range: RegionRange,
    started: Instant,
    messages: mpsc::Receiver<Result<RegionMessage, ReadError>>,
    _task: AbortOnDropHandle<()>,
}

impl RegionReader {
    /// Starts to read a region; opens its stream within `limits`.
    pub(super) fn start(
        core: Arc<Core>,
        plan: ScanPlan,
        region_range: RegionRange,
        limits: Limits,
    ) -> Self {
        let (sender, messages) = mpsc::channel(READ_AHEAD);
        let task = tokio::spawn(read(core, plan, region_range.clone(), limits, sender));
        let started = Instant::now();
        Self { region_range, started, messages, _task: AbortOnDropHandle::new(task) }
    }

    /// Returns the time since the start.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the next message. Cancel safe. [`RegionMessage::End`] or an error is the last one.
    pub(super) async fn next(&mut self) -> Result<RegionMessage, ReadError> {
        self.messages.recv().await.unwrap_or_else(|| {
            Err(ReadError::Failed(FailedAttempt {
                refusal: Refusal::new(
                    Reason::Internal,
                    "the task that reads the region ended early",
                ),
                effect: Effect::None,
                silent: true,
            }))
        })
    }
}

async fn read(
    core: Arc<Core>,
    plan: ScanPlan,
    region_range: RegionRange,
    limits: Limits,
    out: mpsc::Sender<Result<RegionMessage, ReadError>>,
) {
    let (mut rows, first) = match open(&core, &plan, &region_range, &limits).await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = out.send(Err(error)).await;
            return;
        }
    };
    let mut message = Ok(first);
    loop {
        let last = matches!(message, Err(_) | Ok(RegionMessage::End));
        if out.send(message).await.is_err() || last {
            return;
        }
        message = rows.next().await;
    }
}

/// Opens the stream and waits for its first message. Reopens the stream after errors, because no row was
/// read yet.
async fn open(
    core: &Core,
    plan: &ScanPlan,
    region_range: &RegionRange,
    limits: &Limits,
) -> Result<(RegionRows, RegionMessage), ReadError> {
    let mut search = Search::new(region_range.route.group);
    let mut attempts = Attempts::default();
    loop {
        let error = match RegionRows::open(core, &mut search, plan, region_range, limits).await {
            Ok(mut rows) => match rows.next().await {
                Ok(message) => return Ok((rows, message)),
                Err(error) => error,
            },
            Err(failure) => ReadError::Failed(failure),
        };
        let ReadError::Failed(failure) = error else { return Err(error) };
        let failure = core.reroute_if_retired(search.group, failure);
        attempts.record(&failure);
        let wait = core.router.wait(&mut search, &failure);
        match failure.retry_action() {
            RetryAction::RefreshCatalog => return Err(ReadError::RouteStale(failure)),
            RetryAction::Stop | RetryAction::NewProducer => return Err(ReadError::Failed(failure)),
            RetryAction::RepeatFew if attempts.too_many_faults() => {
                return Err(ReadError::Failed(failure));
            }
            RetryAction::Repeat
            | RetryAction::RepeatIfAsked
            | RetryAction::RepeatFew
            | RetryAction::FindLeader => {
                if limits.exhausted(attempts.made(), wait) {
                    return Err(ReadError::Failed(failure));
                }
            }
        }
        tokio::time::sleep(wait).await;
    }
}
