//! The catalog watch of a data node: addresses of nodes, and events for an observer.

use std::time::Duration;

use tidewater_common::backoff::BackoffSequence;
use tidewater_common::ids::{BootNumber, ClusterId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::watch_event::Event;
use tidewater_proto::v1::{CatalogSnapshot, Reason, WatchRequest};
use tracing::{debug, info};

use super::{BACKOFF, MetaLink, meta_client};
use crate::addresses::AddressBook;

/// A watch without a message for this long is dead: the meta service sends messages more often.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);

impl MetaLink {
    /// Keeps an address book up to date while it is polled, and passes each event of the cluster's catalog
    /// watch to `observe`: a snapshot, which replaces everything before it, then deltas. Another snapshot
    /// follows each reopening of the watch. Events of another cluster are ignored.
    pub async fn follow_catalog(
        &self,
        cluster: ClusterId,
        book: &AddressBook,
        mut observe: impl FnMut(&Event),
    ) {
        let mut backoff = BackoffSequence::new(BACKOFF, self.jitter.clone());
        loop {
            let watched = self.watch_once(cluster, book, &mut observe, &mut backoff).await;
            if let Err(problem) = watched {
                debug!(%problem, "the catalog watch was interrupted");
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn watch_once(
        &self,
        cluster: ClusterId,
        book: &AddressBook,
        observe: &mut impl FnMut(&Event),
        backoff: &mut BackoffSequence,
    ) -> Result<(), Refusal> {
        let request =
            WatchRequest { from_revision: 0, incarnation: 0, cluster_id: cluster.to_string() };
        let mut events = self
            .call(|channel, _| {
                let mut client = meta_client(channel);
                let request = request.clone();
                async move { client.watch(request).await }
            })
            .await?;
        loop {
            let event =
                tokio::time::timeout(WATCH_TIMEOUT, events.message()).await.map_err(|_| {
                    Refusal::new(Reason::DeadlineExceeded, "the catalog watch timed out")
                })??;
            let Some(event) = event else { return Ok(()) };
            if let Some(event) = &event.event {
                record(cluster, book, event)?;
                observe(event);
            }
            backoff.reset();
        }
    }
}

/// Records the addresses of an event.
///
/// # Errors
/// [`Reason::WrongCluster`]: the snapshot is of another cluster. Meta nodes of older releases do not
/// compare the cluster.
pub(super) fn record(cluster: ClusterId, book: &AddressBook, event: &Event) -> Result<(), Refusal> {
    match event {
        Event::Snapshot(snapshot) if snapshot.cluster_id != cluster.to_string() => {
            Err(Refusal::new(
                Reason::WrongCluster,
                format!(
                    "this node belongs to cluster {cluster}, the meta nodes to {:?}",
                    snapshot.cluster_id
                ),
            ))
        }
        Event::Snapshot(snapshot) => {
            record_snapshot(book, snapshot);
            Ok(())
        }
        Event::Delta(delta) => {
            for node in &delta.node_upserts {
                book.set(NodeId(node.node_id), &node.address);
                book.set_start(NodeId(node.node_id), BootNumber(node.boot));
            }
            for node in &delta.node_deletes {
                book.remove(NodeId(*node));
            }
            Ok(())
        }
        Event::CurrentRevision(_) => Ok(()),
    }
}

/// Nodes that the snapshot does not have were deleted while the watch was interrupted.
fn record_snapshot(book: &AddressBook, snapshot: &CatalogSnapshot) {
    let nodes = snapshot.nodes.iter();
    book.replace_all(nodes.map(|node| (NodeId(node.node_id), node.address.clone())));
    for node in &snapshot.nodes {
        book.set_start(NodeId(node.node_id), BootNumber(node.boot));
    }
    info!(nodes = snapshot.nodes.len(), revision = snapshot.revision, "catalog watch opened");
}
