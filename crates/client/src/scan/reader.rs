//! Reads one share of a range in a task of its own, a little ahead of whoever wants the rows.

use std::sync::Arc;

use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::region::{Ask, ReadError, Received, RegionRows, Share};
use crate::core::Core;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::{Limits, Search};

/// Messages that are fetched ahead.
const AHEAD: usize = 2;

/// A share being read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) share: Share,
    items: mpsc::Receiver<Result<Received, ReadError>>,
    _task: AbortOnDropHandle<()>,
}

impl Reader {
    pub(super) fn start(core: Arc<Core>, ask: Ask, share: Share) -> Self {
        let (sender, items) = mpsc::channel(AHEAD);
        let task = tokio::spawn(read(core, ask, share.clone(), sender));
        Self { share, items, _task: AbortOnDropHandle::new(task) }
    }

    /// What comes next. After [`Received::End`] or an error there is nothing more to ask.
    pub(super) async fn next(&mut self) -> Result<Received, ReadError> {
        self.items.recv().await.unwrap_or_else(|| {
            Err(ReadError::Missed(FailedAttempt {
                refusal: Refusal::new(Reason::Internal, "the reading task ended early"),
                effect: Effect::None,
                silent: true,
            }))
        })
    }
}

async fn read(
    core: Arc<Core>,
    ask: Ask,
    share: Share,
    out: mpsc::Sender<Result<Received, ReadError>>,
) {
    let (mut rows, first) = match first(&core, &ask, &share).await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = out.send(Err(error)).await;
            return;
        }
    };
    let mut item = Ok(first);
    loop {
        let last = matches!(item, Err(_) | Ok(Received::End));
        if out.send(item).await.is_err() || last {
            return;
        }
        item = rows.next().await;
    }
}

/// Opens the stream and waits for what comes first; while nothing has come, it may be opened anew.
async fn first(core: &Core, ask: &Ask, share: &Share) -> Result<(RegionRows, Received), ReadError> {
    let limits = Limits::of(&core.router.options);
    let mut search = Search::new(share.route.group);
    let mut attempts = Attempts::default();
    loop {
        let error = match RegionRows::open(core, &mut search, ask, share).await {
            Ok(mut rows) => match rows.next().await {
                Ok(item) => return Ok((rows, item)),
                Err(error) => error,
            },
            Err(miss) => ReadError::Missed(miss),
        };
        let ReadError::Missed(miss) = error else { return Err(error) };
        attempts.record(&miss);
        let wait = core.router.wait(&mut search, &miss);
        match miss.retry_action() {
            RetryAction::RefreshCatalog => return Err(ReadError::Moved(miss)),
            RetryAction::Stop | RetryAction::NewProducer => return Err(ReadError::Missed(miss)),
            RetryAction::RepeatFew if attempts.too_many_faults() => {
                return Err(ReadError::Missed(miss));
            }
            RetryAction::Repeat
            | RetryAction::RepeatIfAsked
            | RetryAction::RepeatFew
            | RetryAction::FindLeader => {
                if limits.exhausted(attempts.made(), wait) {
                    return Err(ReadError::Missed(miss));
                }
            }
        }
        tokio::time::sleep(wait).await;
    }
}
