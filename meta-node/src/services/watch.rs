//! Catalog watch: a stream of a snapshot, or the deltas since the watcher's revision, then every change.
//!
//! Only the leader serves watches, so that a watcher is never connected to an isolated member. A watcher's
//! queue holds pieces of events that all watchers share. The stream of a watcher that is too slow ends with
//! an error, for which one slot of its queue is reserved, and the watcher resumes from its revision.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{ClusterId, Incarnation, Revision};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Status;

use super::MAX_RESPONSE_BYTES;
use crate::catalog::MetaState;
use crate::feed::{
    CatalogFeed, EncodedMessage, PIECE_BYTES, TopicSet, current_revision, length_of,
};
use crate::group::MetaGroup;
use crate::machine::CatalogView;

/// Capacity of a watcher's queue, in pieces of up to [`PIECE_BYTES`] or one larger record or delta.
const QUEUE_CAPACITY: usize = 16;
/// Maximum number of deltas that are taken at once.
const MAX_DELTAS: usize = 256;
/// Maximum time that a watcher's queue may stay full.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of keep-alive events while nothing changes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

type PieceQueue = mpsc::Sender<Result<Bytes, Status>>;

/// Rejects the watch of a node or client of another cluster: it would take this cluster's catalog for its
/// own. Callers of older releases name no cluster.
///
/// # Errors
/// [`Reason::WrongCluster`].
pub(super) fn check_cluster(ours: ClusterId, requested: &str) -> Result<(), Refusal> {
    if requested.is_empty() || requested == ours.to_string() {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::WrongCluster,
        format!("the call is for cluster {requested:?}, this is {ours}: check the meta addresses"),
    ))
}

/// A watcher and its position.
#[derive(Debug)]
pub(super) struct Watcher {
    topics: TopicSet,
    cursor: WatchCursor,
}

impl Watcher {
    /// Creates the watcher of a request.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]: a topic is unknown. [`Reason::CatalogBehind`]: the watcher's position is
    /// ahead of the state.
    pub(super) fn new(request: &v1::WatchRequest, state: &MetaState) -> Result<Self, Refusal> {
        let watcher =
            Self { topics: TopicSet::parse(&request.topics)?, cursor: WatchCursor::new(request) };
        watcher.cursor.missing(state)?;
        Ok(watcher)
    }

    /// Starts the watcher's stream. `feed` has the states of the group's view.
    pub(super) fn start(
        mut self,
        group: Arc<MetaGroup>,
        feed: Arc<CatalogFeed>,
    ) -> mpsc::Receiver<Result<Bytes, Status>> {
        let (queue, pieces) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(async move {
            if let Err(end) = self.follow(&group, &feed, &queue).await {
                // Fails only when the watcher has disconnected.
                let _ = queue.try_send(Err(end.into()));
            }
        });
        pieces
    }

    /// Sends events until the watcher disconnects, or the watch ends with an error.
    async fn follow(
        &mut self,
        group: &MetaGroup,
        feed: &CatalogFeed,
        queue: &PieceQueue,
    ) -> Result<(), Refusal> {
        let mut revisions = group.view.subscribe();
        let mut keep_alive = interval(KEEP_ALIVE_INTERVAL);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            group.check_leading()?;
            revisions.mark_unchanged();
            if !self.catch_up(&group.view, feed, queue).await? {
                return Ok(());
            }
            tokio::select! {
                _ = keep_alive.tick() => {
                    let current = current_revision(self.cursor.revision);
                    if !send(queue, current, SEND_TIMEOUT).await? {
                        return Ok(());
                    }
                }
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return Err(stopping());
                    }
                }
                () = queue.closed() => return Ok(()),
            }
        }
    }

    /// Sends all events that the watcher misses. Returns `false` when it has disconnected.
    async fn catch_up(
        &mut self,
        view: &CatalogView,
        feed: &CatalogFeed,
        queue: &PieceQueue,
    ) -> Result<bool, Refusal> {
        loop {
            let (cursor, topics) = (self.cursor, self.topics);
            let missed = feed.in_turn(|| {
                let state = view.read();
                let missing = cursor.missing(&state)?;
                let deltas = match missing {
                    MissingEvents::Nothing | MissingEvents::Snapshot => None,
                    MissingEvents::Deltas => {
                        feed.deltas_since(&state, cursor.revision, topics, MAX_DELTAS)
                    }
                };
                Ok::<_, Refusal>((missing, deltas))
            });
            let (missing, deltas) = missed.await??;
            if missing == MissingEvents::Nothing {
                return Ok(true);
            }
            let pieces = match deltas {
                Some((events, reached)) => {
                    self.cursor.revision = reached;
                    join_small(events)
                }
                None => {
                    let snapshot = feed.snapshot().await?;
                    let incarnation = Some(snapshot.incarnation);
                    self.cursor = WatchCursor { incarnation, revision: snapshot.revision };
                    let message = snapshot.event(self.topics);
                    check_length(&message)?;
                    message
                }
            };
            for piece in pieces {
                if !send(queue, piece, SEND_TIMEOUT).await? {
                    return Ok(false);
                }
            }
        }
    }
}

/// Rejects a message that no receiver accepts.
///
/// # Errors
/// [`Reason::MessageTooLarge`]: the catalog is too large.
pub(super) fn check_length(message: &EncodedMessage) -> Result<(), Refusal> {
    let length = length_of(message);
    if length <= MAX_RESPONSE_BYTES {
        return Ok(());
    }
    let text = format!(
        "the catalog has {length} bytes (maximum {MAX_RESPONSE_BYTES}): drop tables that are not needed"
    );
    Err(Refusal::new(Reason::MessageTooLarge, text))
}

/// Joins small events, so that a burst of them costs few sends.
fn join_small(events: EncodedMessage) -> EncodedMessage {
    if events.len() < 2 {
        return events;
    }
    let mut joined = Vec::new();
    let mut piece = Vec::new();
    for event in events {
        if !piece.is_empty() && piece.len() + event.len() > PIECE_BYTES {
            joined.push(Bytes::from(std::mem::take(&mut piece)));
        }
        piece.extend_from_slice(&event);
    }
    joined.push(Bytes::from(piece));
    joined
}

/// Waits for two free slots of the queue, and uses one: the other is reserved for the error. Returns
/// `false` when the watcher has disconnected.
async fn send(queue: &PieceQueue, piece: Bytes, limit: Duration) -> Result<bool, Refusal> {
    match timeout(limit, queue.reserve_many(2)).await {
        Ok(Ok(mut permits)) => {
            if let Some(permit) = permits.next() {
                permit.send(Ok(piece));
            }
            Ok(true)
        }
        Ok(Err(_)) => Ok(false),
        Err(_) => Err(Refusal::new(
            Reason::Overloaded,
            format!(
                "the watcher received nothing for {} s: watch again from its revision",
                limit.as_secs()
            ),
        )),
    }
}

fn stopping() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "this meta node is stopping: watch another node")
}

/// Position of a watcher.
#[derive(Debug, Clone, Copy)]
struct WatchCursor {
    /// Incarnation of the revision; `None`: the watcher needs a snapshot.
    incarnation: Option<Incarnation>,
    revision: Revision,
}

/// Events that bring a watcher to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MissingEvents {
    Nothing,
    Deltas,
    Snapshot,
}

impl WatchCursor {
    fn new(request: &v1::WatchRequest) -> Self {
        let revision = Revision(request.from_revision);
        let known = request.from_revision != 0;
        Self { incarnation: known.then_some(Incarnation(request.incarnation)), revision }
    }

    /// Returns what leads from the cursor to the state: a snapshot when the cursor is too old or belongs to
    /// an earlier incarnation.
    ///
    /// # Errors
    /// [`Reason::CatalogBehind`]: the cursor is ahead of the state. No meta leader has sent its revision.
    fn missing(&self, state: &MetaState) -> Result<MissingEvents, Refusal> {
        let header = state.header();
        let Some(incarnation) = self.incarnation else { return Ok(MissingEvents::Snapshot) };
        if (incarnation, self.revision) > (header.incarnation, header.revision) {
            return Err(Refusal::new(
                Reason::CatalogBehind,
                format!(
                    "the catalog is at revision {} of incarnation {}, the watcher at revision {} of \
                     incarnation {incarnation}: watch from revision 0",
                    header.revision, header.incarnation, self.revision
                ),
            ));
        }
        Ok(if (incarnation, self.revision) == (header.incarnation, header.revision) {
            MissingEvents::Nothing
        } else if incarnation == header.incarnation && state.keeps_deltas_since(self.revision) {
            MissingEvents::Deltas
        } else {
            MissingEvents::Snapshot
        })
    }
}

#[cfg(test)]
mod tests;
