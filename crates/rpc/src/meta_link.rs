//! Client of the meta service for data and compactor nodes: registration, heartbeats, cursors of
//! durable hooks, and the catalog watch.
//!
//! Any meta node can be called. A follower names the leader, which is called next and remembered.
//!
//! # Layout
//!
//! - `attempts`: order and limits of the attempts of a call; `cursors`: cursors of durable hooks; `watch`: the
//!   catalog watch.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::backoff::{Backoff, BackoffSequence, Jitter};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{
    HeartbeatRequest, HeartbeatResponse, ReadGroupRequest, ReadGroupResponse, Reason,
    RegisterRequest, RegisterResponse,
};
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::{info, warn};

use self::attempts::AttemptPlan;
use crate::attempt::{FailedAttempt, attempt, timed};
use crate::channels::Channels;
use crate::connect::{ConnectPolicy, MESSAGE_BYTES};

mod attempts;
mod cursors;
mod watch;

pub use cursors::CursorList;

#[cfg(test)]
mod tests;

/// Backoff between calls to all addresses. With jitter: all nodes of a cluster lose the same leader. Longer
/// waits would delay the watches beyond the election of a new one; a call that is refused costs little.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(1) };

/// Time for which a registration is repeated although it was refused for good, when the refusal names a time
/// for a retry: the previous process of the node may have just stopped at another address.
const STOPPING_LIMIT: Duration = Duration::from_secs(8);

/// Client of the meta service. Clones share connections and the remembered leader.
#[derive(Debug, Clone)]
pub struct MetaLink {
    addresses: Arc<[String]>,
    jitter: Jitter,
    channels: Arc<Channels>,
    preferred: Arc<Mutex<Option<String>>>,
}

/// Permanent failure of a registration.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No address of a meta node is configured.
    #[error("no address of a meta node was given")]
    NoAddress,
    /// The meta service rejects this node.
    #[error("the meta service refused this node: {0}")]
    Refused(#[source] Refusal),
}

impl MetaLink {
    /// Creates a client of the meta nodes at these addresses (host:port). `jitter` spreads its retries.
    pub fn new(addresses: impl IntoIterator<Item = String>, jitter: Jitter) -> Self {
        Self::with_policy(addresses, jitter, ConnectPolicy::META)
    }

    /// Creates a client as [`new`](Self::new), whose connections follow another policy than
    /// [`ConnectPolicy::META`].
    pub fn with_policy(
        addresses: impl IntoIterator<Item = String>,
        jitter: Jitter,
        policy: ConnectPolicy,
    ) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            jitter,
            channels: Arc::new(Channels::new(policy)),
            preferred: Arc::default(),
        }
    }

    /// Returns the configured addresses.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Registers the node. Retries until the meta service accepts it or refuses it permanently.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(
        &self,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, RegisterError> {
        if self.addresses.is_empty() {
            return Err(RegisterError::NoAddress);
        }
        let mut backoff = BackoffSequence::new(BACKOFF, self.jitter.clone());
        let begun = Instant::now();
        loop {
            let refusal = match self.register_once(&request).await {
                Ok(response) => return Ok(response),
                Err(refusal) => refusal,
            };
            if is_final_for_registration(&refusal, begun.elapsed()) {
                return Err(RegisterError::Refused(refusal));
            }
            let tried = self.addresses.join(", ");
            let wait = backoff.next_wait();
            // Nodes of a new cluster start together: the first attempts may precede its bootstrap.
            if backoff.is_at_longest() {
                warn!(tried, problem = %refusal, "no meta node has registered this node yet; retrying");
            } else {
                info!(tried, problem = %refusal, "not registered yet; retrying");
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Registers the node with one call.
    async fn register_once(&self, request: &RegisterRequest) -> Result<RegisterResponse, Refusal> {
        self.call(|channel, limit| {
            let mut client = meta_client(channel);
            let request = timed(request.clone(), limit);
            async move { client.register(request).await }
        })
        .await
    }

    /// Sends a heartbeat of this node.
    ///
    /// # Errors
    /// The meta service refuses the node, or no meta node that could take the heartbeat answered.
    pub async fn heartbeat(
        &self,
        request: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Refusal> {
        self.call(|channel, limit| {
            let mut client = meta_client(channel);
            let request = timed(request.clone(), limit);
            async move { client.heartbeat(request).await }
        })
        .await
    }

    /// Returns the meta group's record of a group, linearizably.
    ///
    /// # Errors
    /// As [`MetaLink::heartbeat`].
    pub async fn read_group(
        &self,
        request: &ReadGroupRequest,
    ) -> Result<ReadGroupResponse, Refusal> {
        self.call(|channel, limit| {
            let mut client = meta_client(channel);
            let request = timed(request.clone(), limit);
            async move { client.read_group(request).await }
        })
        .await
    }

    /// Calls the node that responded last, then the others; a leader that they name comes next. The call
    /// must be idempotent: an attempt without an answer is repeated.
    async fn call<T, F, Fut>(&self, call: F) -> Result<T, Refusal>
    where
        F: Fn(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut plan = AttemptPlan::new(self.call_order());
        let mut last = Refusal::new(Reason::Unavailable, "no meta node was called");
        while let Some((address, limit)) = plan.next() {
            let answer = match self.channels.to(&address) {
                Ok(channel) => attempt(&address, limit, call(channel, limit)).await,
                Err(refusal) => Err(FailedAttempt::not_sent(refusal)),
            };
            let failed = match answer {
                Ok(response) => {
                    *self.preferred.lock() = Some(address);
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            if is_final(failed.refusal.reason) {
                return Err(failed.refusal);
            }
            if failed.is_timeout() {
                plan.record_timeout(address);
            } else if let Some(leader) = &failed.refusal.leader {
                plan.record_leader(&leader.address);
            }
            last = failed.refusal;
        }
        *self.preferred.lock() = None;
        Err(last)
    }

    fn call_order(&self) -> Vec<String> {
        let mut order: Vec<String> = self.preferred.lock().iter().cloned().collect();
        for address in self.addresses.iter() {
            if !order.contains(address) {
                order.push(address.clone());
            }
        }
        order
    }
}

fn meta_client(channel: Channel) -> MetaClient<Channel> {
    MetaClient::new(channel).max_decoding_message_size(MESSAGE_BYTES)
}

/// Returns whether a registration ends with this refusal, `elapsed` after its first attempt.
fn is_final_for_registration(refusal: &Refusal, elapsed: Duration) -> bool {
    let may_pass = refusal.retry_after.is_some() && elapsed < STOPPING_LIMIT;
    is_final(refusal.reason) && !may_pass
}

/// Returns whether neither a retry nor another meta node can help.
fn is_final(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidArgument
            | Reason::WrongCluster
            | Reason::NodeRemoved
            | Reason::RoleMismatch
            | Reason::ObjectStoreMismatch
            | Reason::NodeNotFound
            | Reason::DirectoryCopied
            | Reason::ReleaseUnsupported
    )
}
