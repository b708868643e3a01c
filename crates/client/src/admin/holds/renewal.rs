//! Renewals of a hold in the background: when, and until when the hold is known to exist.
//!
//! The lease of the holder counts from the begin of a successful call, by its own monotonic clock, so that it ends before that
//! of the cluster. A renewal begins after a third of it. Failures are repeated until it ends.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::AcquireHold;
use crate::error::ClientError;

/// Cause of the loss of a hold. Its epoch may not be readable any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldLoss {
    /// The cluster has no such hold.
    #[error("the hold does not exist any more: it was released, or its lease has expired")]
    NotFound,
    /// No renewal has succeeded in the time of the lease.
    #[error("the hold was not renewed within its lease")]
    NotRenewed,
}

/// Lease of a hold, as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    length: Duration,
    /// Begin of the last successful call.
    renewed: Instant,
}

impl Lease {
    pub(super) fn new(length: Duration, renewed: Instant) -> Self {
        // The end of a longer one may not exist.
        Self { length: length.min(AcquireHold::MAX_LEASE), renewed }
    }

    fn next_renewal(self) -> Instant {
        self.renewed + self.length / 3
    }

    fn end(self) -> Instant {
        self.renewed + self.length
    }

    /// Timeout of an attempt: a frozen node leaves time for several others.
    fn attempt_timeout(self) -> Duration {
        self.length / 6
    }

    /// Pauses after failed renewals.
    fn backoff(self) -> Backoff {
        Backoff { first: self.length / 60, longest: self.length / 12 }
    }

    /// Returns the lease after a renewal that has succeeded; a lease that has ended stays lost. `begun`: begin of the call.
    fn after_renewal(self, begun: Instant, now: Instant) -> Result<Self, HoldLoss> {
        if now >= self.end() {
            return Err(HoldLoss::NotRenewed);
        }
        Ok(Self { renewed: begun, ..self })
    }
}

/// State of a hold, as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldState {
    lease: Lease,
    /// Final.
    pub(super) loss: Option<HoldLoss>,
}

impl HoldState {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease, loss: None }
    }

    /// Records a loss, unless one is known.
    pub(super) fn record_loss(&mut self, loss: HoldLoss) {
        self.loss.get_or_insert(loss);
    }

    /// Returns the loss at a time. The end of the lease is one, also before the renewing task has recorded it.
    pub(super) fn loss_at(self, now: Instant) -> Option<HoldLoss> {
        self.loss.or_else(|| (now >= self.lease.end()).then_some(HoldLoss::NotRenewed))
    }
}

/// Calls of a task that renews one hold.
pub(super) trait Renewals: Send + Sync + 'static {
    /// Renews the lease. `false`: the hold does not exist. `longest`: timeout of an attempt.
    fn renew(&self, longest: Duration) -> impl Future<Output = Result<bool, ClientError>> + Send;

    /// Returns random bits for the jitter of pauses.
    fn bits(&self) -> u64;
}

/// Renews a hold until it is lost.
pub(super) async fn keep(renewals: impl Renewals, states: Arc<watch::Sender<HoldState>>) {
    loop {
        let state = *states.borrow();
        if state.loss.is_some() {
            return;
        }
        sleep_until(state.lease.next_renewal()).await;
        let renewed = renew(&renewals, state.lease).await;
        states.send_modify(|state| match renewed {
            Ok(lease) => state.lease = lease,
            Err(loss) => state.record_loss(loss),
        });
    }
}

/// Renews a lease once. Repeats failures until the lease ends.
async fn renew(renewals: &impl Renewals, lease: Lease) -> Result<Lease, HoldLoss> {
    let attempts = async {
        let mut failures: u32 = 0;
        loop {
            let begun = Instant::now();
            match renewals.renew(lease.attempt_timeout()).await {
                Ok(true) => return lease.after_renewal(begun, Instant::now()),
                Ok(false) => return Err(HoldLoss::NotFound),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(%error, failures, "hold not renewed; retrying");
                    sleep(lease.backoff().wait(failures, None, renewals.bits())).await;
                }
            }
        }
    };
    timeout_at(lease.end(), attempts).await.unwrap_or(Err(HoldLoss::NotRenewed))
}

#[cfg(test)]
mod tests;
