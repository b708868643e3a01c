//! Client of the meta service for data and compactor nodes: registration, heartbeats, and the
//! addresses of other nodes.
//!
//! Any meta node can be called. A follower names the leader, which is called next and remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::hook_cursors_client::HookCursorsClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{
    AdvanceCursorsRequest, AdvanceCursorsResponse, CatalogSnapshot, HeartbeatRequest,
    HeartbeatResponse, ListCursorsRequest, ListCursorsResponse, ReadGroupRequest,
    ReadGroupResponse, Reason, RegisterRequest, RegisterResponse, WatchRequest, watch_event,
};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::network::AddressBook;

/// Timeout of connecting, and of a response.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest backoff between rounds over all addresses.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// A watch without a message for this long is dead: the meta service sends messages more often.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Client of the meta service. Clones share connections and the remembered leader.
#[derive(Debug, Clone)]
pub struct MetaLink {
    addresses: Arc<[String]>,
    state: Arc<Mutex<LinkState>>,
}

#[derive(Debug, Default)]
struct LinkState {
    channels: HashMap<String, Channel>,
    preferred: Option<String>,
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
    /// Creates a client of the meta nodes at these addresses (host:port).
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self { addresses: addresses.into_iter().collect(), state: Arc::default() }
    }

    /// Returns the configured addresses.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Registers the node. Retries until the meta service accepts it or refuses it permanently.
    pub async fn register(
        &self,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, RegisterError> {
        if self.addresses.is_empty() {
            return Err(RegisterError::NoAddress);
        }
        let mut wait = BACKOFF.0;
        loop {
            let refusal = match self.register_once(&request).await {
                Ok(response) => return Ok(response),
                Err(refusal) => refusal,
            };
            if is_final(refusal.reason) {
                return Err(RegisterError::Refused(refusal));
            }
            let tried = self.addresses.join(", ");
            // Nodes of a new cluster start together: the first attempts may precede its bootstrap.
            if wait < BACKOFF.1 {
                info!(tried, problem = %refusal, "not registered yet; retrying");
            } else {
                warn!(tried, problem = %refusal, "no meta node has registered this node yet; retrying");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Registers the node with one attempt at each address.
    pub async fn register_once(
        &self,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, Refusal> {
        self.call(|channel| {
            let mut client = client(channel);
            let request = request.clone();
            async move { client.register(timed(request)).await }
        })
        .await
    }

    /// Sends a heartbeat of this node.
    pub async fn heartbeat(
        &self,
        request: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Refusal> {
        self.call(|channel| {
            let mut client = client(channel);
            let request = request.clone();
            async move { client.heartbeat(timed(request)).await }
        })
        .await
    }

    /// Returns the meta group's record of a group, linearizably.
    pub async fn read_group(
        &self,
        request: &ReadGroupRequest,
    ) -> Result<ReadGroupResponse, Refusal> {
        self.call(|channel| {
            let mut client = client(channel);
            let request = request.clone();
            async move { client.read_group(timed(request)).await }
        })
        .await
    }

    /// Returns one page of cursors of durable hooks in the regions of some groups.
    pub async fn list_cursors(
        &self,
        request: &ListCursorsRequest,
    ) -> Result<ListCursorsResponse, Refusal> {
        self.call(|channel| {
            let mut client = cursors_client(channel);
            let request = request.clone();
            async move { client.list_cursors(timed(request)).await }
        })
        .await
    }

    /// Advances cursors of durable hooks.
    pub async fn advance_cursors(
        &self,
        request: &AdvanceCursorsRequest,
    ) -> Result<AdvanceCursorsResponse, Refusal> {
        self.call(|channel| {
            let mut client = cursors_client(channel);
            let request = request.clone();
            async move { client.advance_cursors(timed(request)).await }
        })
        .await
    }

    /// Keeps an address book up to date while it is polled.
    pub async fn follow_addresses(&self, book: &AddressBook) {
        self.follow_catalog(book, |_| {}).await;
    }

    /// Keeps an address book up to date and passes each event of the catalog watch to `observe`: a
    /// snapshot, which replaces everything before it, then deltas. Another snapshot follows each
    /// reopening of the watch.
    pub async fn follow_catalog(
        &self,
        book: &AddressBook,
        mut observe: impl FnMut(&watch_event::Event),
    ) {
        let mut wait = BACKOFF.0;
        loop {
            if let Err(problem) = self.watch_once(book, &mut observe, &mut wait).await {
                tracing::debug!(%problem, "the catalog watch was interrupted");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn watch_once(
        &self,
        book: &AddressBook,
        observe: &mut impl FnMut(&watch_event::Event),
        wait: &mut Duration,
    ) -> Result<(), Refusal> {
        let mut events = self
            .call(|channel| async move {
                client(channel).watch(WatchRequest { from_revision: 0, incarnation: 0 }).await
            })
            .await?;
        loop {
            let event =
                tokio::time::timeout(WATCH_TIMEOUT, events.message()).await.map_err(|_| {
                    Refusal::new(Reason::DeadlineExceeded, "the catalog watch timed out")
                })??;
            let Some(event) = event else { return Ok(()) };
            *wait = BACKOFF.0;
            if let Some(event) = &event.event {
                observe(event);
            }
            match event.event {
                Some(watch_event::Event::Snapshot(snapshot)) => record_addresses(book, &snapshot),
                Some(watch_event::Event::Delta(delta)) => {
                    for node in delta.node_upserts {
                        book.set(NodeId(node.node_id), node.address);
                    }
                    for node in delta.node_deletes {
                        book.remove(NodeId(node));
                    }
                }
                Some(watch_event::Event::CurrentRevision(_)) | None => {}
            }
        }
    }

    /// Calls the node that responded last, then the others; a leader that they name comes next.
    async fn call<T, F, Fut>(&self, call: F) -> Result<T, Refusal>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut queue = self.call_order();
        let mut redirects = 0;
        let mut last = Refusal::new(Reason::Unavailable, "no meta node was called");
        while !queue.is_empty() {
            let address = queue.remove(0);
            let answer = match self.channel(&address) {
                Ok(channel) => match tokio::time::timeout(RESPONSE_TIMEOUT, call(channel)).await {
                    Ok(answer) => answer.map_err(Refusal::from),
                    Err(_) => Err(Refusal::new(
                        Reason::DeadlineExceeded,
                        format!("{address} did not answer within {RESPONSE_TIMEOUT:?}"),
                    )),
                },
                Err(refusal) => Err(refusal),
            };
            let refusal = match answer {
                Ok(response) => {
                    self.state.lock().preferred = Some(address);
                    return Ok(response.into_inner());
                }
                Err(refusal) => refusal,
            };
            if is_final(refusal.reason) {
                return Err(refusal);
            }
            let leader = refusal.leader.as_ref().map(|leader| leader.address.clone());
            if let Some(leader) = leader.filter(|leader| !leader.is_empty() && redirects < 3) {
                redirects += 1;
                queue.retain(|known| *known != leader);
                queue.insert(0, leader);
            }
            last = refusal;
        }
        self.state.lock().preferred = None;
        Err(last)
    }

    fn call_order(&self) -> Vec<String> {
        let mut order: Vec<String> = self.state.lock().preferred.iter().cloned().collect();
        for address in self.addresses.iter() {
            if !order.contains(address) {
                order.push(address.clone());
            }
        }
        order
    }

    fn channel(&self, address: &str) -> Result<Channel, Refusal> {
        let mut state = self.state.lock();
        if let Some(channel) = state.channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            Refusal::new(Reason::InvalidArgument, format!("meta address {address}: {error}"))
        })?;
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy();
        state.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn client(channel: Channel) -> MetaClient<Channel> {
    MetaClient::new(channel).max_decoding_message_size(crate::network::MESSAGE_BYTES)
}

fn cursors_client(channel: Channel) -> HookCursorsClient<Channel> {
    HookCursorsClient::new(channel).max_decoding_message_size(crate::network::MESSAGE_BYTES)
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(RESPONSE_TIMEOUT);
    request
}

fn record_addresses(book: &AddressBook, snapshot: &CatalogSnapshot) {
    for node in &snapshot.nodes {
        book.set(NodeId(node.node_id), node.address.clone());
    }
    info!(nodes = snapshot.nodes.len(), revision = snapshot.revision, "catalog watch opened");
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
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_responding_node_is_called_first() {
        let link = MetaLink::new(["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(link.call_order(), ["a:1", "b:1"]);
        link.state.lock().preferred = Some("b:1".to_owned());
        assert_eq!(link.call_order(), ["b:1", "a:1"]);
        link.state.lock().preferred = Some("c:1".to_owned());
        assert_eq!(link.call_order(), ["c:1", "a:1", "b:1"]);
    }

    #[test]
    fn only_permanent_errors_end_registration() {
        for reason in [Reason::WrongCluster, Reason::NodeRemoved, Reason::RoleMismatch] {
            assert!(is_final(reason), "{reason:?}");
        }
        for reason in [Reason::NotLeader, Reason::Unavailable, Reason::NotBootstrapped] {
            assert!(!is_final(reason), "{reason:?}");
        }
    }

    #[tokio::test]
    async fn registration_fails_without_an_address() {
        let link = MetaLink::new([]);
        let error = link.register(RegisterRequest::default()).await;
        assert!(matches!(error, Err(RegisterError::NoAddress)));
    }
}
