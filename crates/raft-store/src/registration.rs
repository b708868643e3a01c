//! Joining a cluster from the outside: how a data or compactor node registers with the meta
//! service, shows that it lives, and learns where the others are.
//!
//! Any meta node may be asked; a follower names the leader, who is asked next and remembered.

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
    HeartbeatResponse, ListCursorsRequest, ListCursorsResponse, Reason, RegisterRequest,
    RegisterResponse, WatchRequest, watch_event,
};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::network::AddressBook;

/// Longest wait for a connection, and for an answer.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);
/// First and longest wait between rounds over all addresses.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// A watch on which nothing comes for so long is dead: the meta service says something more often.
const WATCH_SILENCE: Duration = Duration::from_secs(30);

/// The way to the meta service. Clones share connections and what is known of the leader.
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

/// Registering was refused for good, or nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There is no address to ask.
    #[error("no address of a meta node was given")]
    NoAddress,
    /// The meta service does not take this node.
    #[error("the meta service refused this node: {0}")]
    Refused(#[source] Refusal),
}

impl MetaLink {
    /// To the meta nodes at these addresses (host:port).
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self { addresses: addresses.into_iter().collect(), state: Arc::default() }
    }

    /// The addresses as they were given.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Registers, asking again until the meta service answers for good.
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
            warn!(
                tried = self.addresses.join(", "),
                problem = %refusal,
                "no meta node has registered this node yet: trying again"
            );
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Registers with one attempt at each address.
    pub async fn register_once(
        &self,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, Refusal> {
        self.ask(|channel| {
            let (mut client, request) = (client(channel), request.clone());
            async move { client.register(timed(request)).await }
        })
        .await
    }

    /// Shows that a node lives.
    pub async fn heartbeat(
        &self,
        request: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Refusal> {
        self.ask(|channel| {
            let (mut client, request) = (client(channel), request.clone());
            async move { client.heartbeat(timed(request)).await }
        })
        .await
    }

    /// How far durable hooks are with the regions of some groups: one page.
    pub async fn list_cursors(
        &self,
        request: &ListCursorsRequest,
    ) -> Result<ListCursorsResponse, Refusal> {
        self.ask(|channel| {
            let (mut client, request) = (cursors(channel), request.clone());
            async move { client.list_cursors(timed(request)).await }
        })
        .await
    }

    /// Moves cursors of durable hooks.
    pub async fn advance_cursors(
        &self,
        request: &AdvanceCursorsRequest,
    ) -> Result<AdvanceCursorsResponse, Refusal> {
        self.ask(|channel| {
            let (mut client, request) = (cursors(channel), request.clone());
            async move { client.advance_cursors(timed(request)).await }
        })
        .await
    }

    /// Keeps an address book true, for as long as it is polled.
    pub async fn follow_addresses(&self, book: &AddressBook) {
        self.follow_catalog(book, |_| {}).await;
    }

    /// Keeps an address book true, and shows each event of the catalog watch: a snapshot, after
    /// which whatever it does not name is gone, then deltas; another snapshot whenever the watch had
    /// to be opened again.
    pub async fn follow_catalog(
        &self,
        book: &AddressBook,
        mut show: impl FnMut(&watch_event::Event),
    ) {
        let mut wait = BACKOFF.0;
        loop {
            if let Err(problem) = self.watch_once(book, &mut show, &mut wait).await {
                tracing::debug!(%problem, "the catalog watch was interrupted");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn watch_once(
        &self,
        book: &AddressBook,
        show: &mut impl FnMut(&watch_event::Event),
        wait: &mut Duration,
    ) -> Result<(), Refusal> {
        let mut events = self
            .ask(|channel| async move {
                client(channel).watch(WatchRequest { from_revision: 0, incarnation: 0 }).await
            })
            .await?;
        loop {
            let event = tokio::time::timeout(WATCH_SILENCE, events.message())
                .await
                .map_err(|_| Refusal::new(Reason::DeadlineExceeded, "the watch went silent"))??;
            let Some(event) = event else { return Ok(()) };
            *wait = BACKOFF.0;
            if let Some(event) = &event.event {
                show(event);
            }
            match event.event {
                Some(watch_event::Event::Snapshot(snapshot)) => note_all(book, &snapshot),
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

    /// Asks the node that answered last, then the others, then whom they name as leader.
    async fn ask<T, F, Fut>(&self, call: F) -> Result<T, Refusal>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut queue = self.order();
        let mut followed = 0;
        let mut last = Refusal::new(Reason::Unavailable, "no meta node was asked");
        while !queue.is_empty() {
            let address = queue.remove(0);
            let answer = match self.channel(&address) {
                Ok(channel) => match tokio::time::timeout(ANSWER, call(channel)).await {
                    Ok(answer) => answer.map_err(Refusal::from),
                    Err(_) => Err(Refusal::new(
                        Reason::DeadlineExceeded,
                        format!("{address} did not answer within {ANSWER:?}"),
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
            if let Some(leader) = leader.filter(|leader| !leader.is_empty() && followed < 3) {
                followed += 1;
                queue.retain(|known| *known != leader);
                queue.insert(0, leader);
            }
            last = refusal;
        }
        self.state.lock().preferred = None;
        Err(last)
    }

    fn order(&self) -> Vec<String> {
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
        let channel = endpoint.connect_timeout(CONNECT).connect_lazy();
        state.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn client(channel: Channel) -> MetaClient<Channel> {
    MetaClient::new(channel).max_decoding_message_size(crate::network::MESSAGE_BYTES)
}

fn cursors(channel: Channel) -> HookCursorsClient<Channel> {
    HookCursorsClient::new(channel).max_decoding_message_size(crate::network::MESSAGE_BYTES)
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ANSWER);
    request
}

fn note_all(book: &AddressBook, snapshot: &CatalogSnapshot) {
    for node in &snapshot.nodes {
        book.set(NodeId(node.node_id), node.address.clone());
    }
    info!(nodes = snapshot.nodes.len(), revision = snapshot.revision, "catalog watch opened");
}

/// Whether asking again, or asking another meta node, cannot help.
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
    fn the_node_that_answered_last_is_asked_first() {
        let link = MetaLink::new(["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(link.order(), ["a:1", "b:1"]);
        link.state.lock().preferred = Some("b:1".to_owned());
        assert_eq!(link.order(), ["b:1", "a:1"]);
        link.state.lock().preferred = Some("c:1".to_owned());
        assert_eq!(link.order(), ["c:1", "a:1", "b:1"]);
    }

    #[test]
    fn only_refusals_that_stay_end_the_asking() {
        for reason in [Reason::WrongCluster, Reason::NodeRemoved, Reason::RoleMismatch] {
            assert!(is_final(reason), "{reason:?}");
        }
        for reason in [Reason::NotLeader, Reason::Unavailable, Reason::NotBootstrapped] {
            assert!(!is_final(reason), "{reason:?}");
        }
    }

    #[tokio::test]
    async fn without_an_address_nobody_can_be_asked() {
        let link = MetaLink::new([]);
        let error = link.register(RegisterRequest::default()).await;
        assert!(matches!(error, Err(RegisterError::NoAddress)));
    }
}
