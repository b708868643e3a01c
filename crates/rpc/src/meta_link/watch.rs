//! The catalog watch of a data node: addresses of nodes, and events for an observer.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// Position of a watch in the revisions of the catalog; initially none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WatchPosition {
    incarnation: u64,
    /// 0: the watch needs a snapshot.
    revision: u64,
}

impl WatchPosition {
    /// Follows an event. Returns whether it is new.
    ///
    /// # Errors
    /// [`Reason::CatalogBehind`]: deltas are missing before this one. The position is lost.
    pub(super) fn follow(&mut self, event: &Event) -> Result<bool, Refusal> {
        match event {
            Event::Snapshot(snapshot) => {
                let CatalogSnapshot { incarnation, revision, .. } = *snapshot;
                *self = Self { incarnation, revision };
                Ok(true)
            }
            Event::Delta(delta) if delta.revision <= self.revision => Ok(false),
            Event::Delta(delta) if delta.revision == self.revision + 1 && self.revision > 0 => {
                self.revision = delta.revision;
                Ok(true)
            }
            Event::Delta(delta) => {
                let text = format!(
                    "revision {} of the catalog follows revision {}",
                    delta.revision, self.revision
                );
                *self = Self::default();
                Err(Refusal::new(Reason::CatalogBehind, text))
            }
            Event::CurrentRevision(_) => Ok(true),
        }
    }
}

impl MetaLink {
    /// Keeps an address book up to date while it is polled, and passes each event of the cluster's catalog
    /// watch to `observe`: a snapshot, which replaces everything before it, then deltas. An interrupted watch
    /// resumes from its revision; another snapshot follows when the deltas since then are no longer kept.
    /// Events of another cluster are ignored.
    pub async fn follow_catalog(
        &self,
        cluster: ClusterId,
        book: &AddressBook,
        mut observe: impl FnMut(&Event),
    ) {
        let mut backoff = BackoffSequence::new(BACKOFF, self.jitter.clone());
        let mut position = WatchPosition::default();
        loop {
            let mut observe =
                |position: &mut WatchPosition, event: &Event| -> Result<(), Refusal> {
                    check_snapshot(cluster, event)?;
                    if position.follow(event)? {
                        record(book, event);
                        observe(event);
                    }
                    Ok(())
                };
            let watched = self.watch_once(cluster, &mut position, &mut observe, &mut backoff).await;
            if let Err(problem) = watched {
                debug!(%problem, "the catalog watch was interrupted");
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn watch_once(
        &self,
        cluster: ClusterId,
        position: &mut WatchPosition,
        observe: &mut impl FnMut(&mut WatchPosition, &Event) -> Result<(), Refusal>,
        backoff: &mut BackoffSequence,
    ) -> Result<(), Refusal> {
        let request = WatchRequest {
            from_revision: position.revision,
            incarnation: position.incarnation,
            cluster_id: cluster.to_string(),
            ..WatchRequest::default()
        };
        let is_ahead = AtomicBool::new(false);
        let opened = self
            .call(|channel, _| {
                let mut client = meta_client(channel);
                let request = request.clone();
                let is_ahead = &is_ahead;
                async move {
                    let opened = client.watch(request).await;
                    opened.inspect_err(|status| {
                        let refusal = Refusal::from_status(status);
                        let ahead = refusal.reason == Reason::CatalogBehind;
                        is_ahead.fetch_or(ahead, Ordering::Relaxed);
                    })
                }
            })
            .await;
        if is_ahead.into_inner() {
            // The leader does not know the revision: it has lost it, or this position is wrong.
            *position = WatchPosition::default();
        }
        let mut events = opened?;
        loop {
            let event =
                tokio::time::timeout(WATCH_TIMEOUT, events.message()).await.map_err(|_| {
                    Refusal::new(Reason::DeadlineExceeded, "the catalog watch timed out")
                })??;
            let Some(event) = event else { return Ok(()) };
            if let Some(event) = &event.event {
                observe(position, event)?;
            }
            backoff.reset();
        }
    }
}

/// Checks that a snapshot is of this cluster.
///
/// # Errors
/// [`Reason::WrongCluster`]: it is of another cluster. Meta nodes of older releases do not compare the
/// cluster.
pub(super) fn check_snapshot(cluster: ClusterId, event: &Event) -> Result<(), Refusal> {
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
        _ => Ok(()),
    }
}

/// Records the addresses of an event.
pub(super) fn record(book: &AddressBook, event: &Event) {
    match event {
        Event::Snapshot(snapshot) => record_snapshot(book, snapshot),
        Event::Delta(delta) => {
            for node in &delta.node_upserts {
                book.set(NodeId(node.node_id), &node.address);
                book.set_start(NodeId(node.node_id), BootNumber(node.boot));
            }
            for node in &delta.node_deletes {
                book.remove(NodeId(*node));
            }
        }
        Event::CurrentRevision(_) => {}
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
