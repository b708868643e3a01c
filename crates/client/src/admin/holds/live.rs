//! Hold of a program, renewed in the background.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_proto::v1::Reason;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::AcquireHold;
use super::renewal::{HoldLoss, HoldState, Lease, Renewals, keep};
use crate::client::Client;
use crate::error::ClientError;

/// Read hold that is renewed in the background at a third of its lease.
///
/// A program checks [`is_lost`](Self::is_lost), or waits for [`lost`](Self::lost) while it reads: after a loss, reads as of the
/// epoch may be refused. Rows that were read are right in any case.
///
/// Dropping it ends the renewals, and the hold ends with its lease; [`release`](Self::release) ends it at once. The
/// clock of the lease does not advance while the machine sleeps: a loss of that time is known after the next renewal.
#[derive(Debug)]
#[must_use = "a hold that is dropped is not renewed"]
pub struct LiveHold {
    client: Client,
    name: String,
    epoch: Epoch,
    states: Arc<watch::Sender<HoldState>>,
    renewals: AbortOnDropHandle<()>,
}

impl Client {
    /// Acquires a hold and renews it until it is released or dropped. If this call is dropped, a hold that it has acquired ends
    /// with its lease.
    ///
    /// # Errors
    /// As [`acquire_read_hold`](Self::acquire_read_hold).
    pub async fn hold(&self, hold: AcquireHold) -> Result<LiveHold, ClientError> {
        let name = hold.name.clone();
        // The lease may begin with the first attempt.
        let begun = Instant::now();
        let acquired = self.acquire_read_hold(hold).await?;
        let lease = Lease::new(Duration::from_millis(acquired.lease_ms), begun);
        let states = Arc::new(watch::Sender::new(HoldState::new(lease)));
        let calls = ClientRenewals { client: self.clone(), name: name.clone() };
        let task = tokio::spawn(keep(calls, states.clone()));
        Ok(LiveHold {
            client: self.clone(),
            name,
            epoch: Epoch(acquired.epoch),
            states,
            renewals: AbortOnDropHandle::new(task),
        })
    }
}

impl LiveHold {
    /// Returns the name of the hold.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the epoch of the hold: its tables can be read as of this epoch and later complete ones.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns `true` once the hold is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.loss().is_some()
    }

    /// Returns the cause of the loss of the hold; `None`: it is not lost. A loss is final.
    pub fn loss(&self) -> Option<HoldLoss> {
        self.states.borrow().loss_at(Instant::now())
    }

    /// Waits until the hold is lost. Never returns if the hold is released or dropped before.
    pub fn lost(&self) -> impl Future<Output = HoldLoss> + Send + use<> {
        let mut states = self.states.subscribe();
        async move {
            let lost = states.wait_for(|state| state.loss.is_some());
            let loss = lost.await.ok().and_then(|state| state.loss);
            match loss {
                Some(loss) => loss,
                None => std::future::pending().await,
            }
        }
    }

    /// Moves the hold to a later epoch, so that rows of earlier ones may be dropped. After an unknown outcome, the hold is
    /// regarded as moved.
    ///
    /// # Errors
    /// As [`Client::downgrade_read_hold`]. The hold is lost if the error is `HoldNotFound`.
    pub async fn downgrade(&mut self, epoch: Epoch) -> Result<(), ClientError> {
        match self.client.downgrade_read_hold(&self.name, epoch).await {
            Ok(moved) => {
                self.epoch = self.epoch.max(Epoch(moved.epoch));
                Ok(())
            }
            Err(error) => {
                if is_missing(&error) {
                    self.states.send_modify(|state| state.record_loss(HoldLoss::NotFound));
                } else if error.maybe_done() {
                    self.epoch = self.epoch.max(epoch);
                }
                Err(error)
            }
        }
    }

    /// Releases the hold at once.
    ///
    /// # Errors
    /// As [`Client::release_read_holds`]; the hold ends with its lease.
    pub async fn release(self) -> Result<(), ClientError> {
        let Self { client, name, renewals, .. } = self;
        // A renewal would find no hold, and report it as lost.
        drop(renewals);
        client.release_read_holds(&[name]).await?;
        Ok(())
    }
}

/// Renewals of a hold by the calls of a client.
pub(super) struct ClientRenewals {
    pub(super) client: Client,
    pub(super) name: String,
}

impl Renewals for ClientRenewals {
    async fn renew(&self, longest: Duration) -> Result<bool, ClientError> {
        let longest = longest.min(self.client.options().attempt_timeout);
        match self.client.renew_within(vec![self.name.clone()], longest).await {
            Ok(missing) => Ok(missing.is_empty()),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn bits(&self) -> u64 {
        self.client.options().ids.bits()
    }
}

fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { refusal, .. } if refusal.reason == Reason::HoldNotFound)
}
