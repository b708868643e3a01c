//! Catalog watch: a stream of a snapshot, or the deltas since the watcher's revision, then every change.
//!
//! Only the leader serves watches, so that a watcher is never connected to an isolated member. The
//! stream of a watcher that is too slow ends with an error, for which one slot of its queue is reserved.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tidewater_common::ids::{ClusterId, Incarnation, Revision};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::catalog::MetaState;
use crate::group::MetaGroup;

/// Capacity of a watcher's queue, in events.
const QUEUE_CAPACITY: usize = 64;
/// Maximum time that a watcher's queue may stay full.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of keep-alive events while nothing changes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Starts one watcher's stream.
pub(super) fn start(
    group: Arc<MetaGroup>,
    request: v1::WatchRequest,
) -> impl Stream<Item = Result<v1::WatchEvent, Status>> + Send + 'static {
    let (queue, events) = mpsc::channel(QUEUE_CAPACITY);
    tokio::spawn(async move {
        let mut cursor = WatchCursor::new(&request);
        if let Err(end) = follow(&group, &mut cursor, &queue).await {
            // Fails only when the watcher has disconnected.
            let _ = queue.try_send(Err(end.into()));
        }
    });
    ReceiverStream::new(events)
}

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
        format!("the watch is for cluster {requested:?}, this is {ours}: check the meta addresses"),
    ))
}

type EventQueue = mpsc::Sender<Result<v1::WatchEvent, Status>>;

async fn follow(
    group: &MetaGroup,
    cursor: &mut WatchCursor,
    queue: &EventQueue,
) -> Result<(), Refusal> {
    let mut revisions = group.view.subscribe();
    let mut keep_alive = interval(KEEP_ALIVE_INTERVAL);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        group.check_leading()?;
        revisions.mark_unchanged();
        let events = cursor.advance(&group.view.read());
        for event in events {
            if !send(queue, event, SEND_TIMEOUT).await? {
                return Ok(());
            }
        }
        tokio::select! {
            _ = keep_alive.tick() => {
                let current = Event::CurrentRevision(cursor.revision.get());
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

/// Waits for two free slots of the queue, and uses one: the other is reserved for the error. Returns
/// `false` when the watcher has disconnected.
async fn send(queue: &EventQueue, event: Event, limit: Duration) -> Result<bool, Refusal> {
    match timeout(limit, queue.reserve_many(2)).await {
        Ok(Ok(mut permits)) => {
            if let Some(permit) = permits.next() {
                permit.send(Ok(v1::WatchEvent { event: Some(event) }));
            }
            Ok(true)
        }
        Ok(Err(_)) => Ok(false),
        Err(_) => Err(Refusal::new(
            Reason::Overloaded,
            format!(
                "the watcher received no event for {} s: watch again from its revision",
                limit.as_secs()
            ),
        )),
    }
}

fn stopping() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "this meta node is stopping: watch another node")
}

/// Position of a watcher.
#[derive(Debug)]
struct WatchCursor {
    /// Incarnation of the revision; `None`: the watcher needs a snapshot.
    incarnation: Option<Incarnation>,
    revision: Revision,
}

impl WatchCursor {
    fn new(request: &v1::WatchRequest) -> Self {
        let revision = Revision(request.from_revision);
        let known = request.from_revision != 0;
        Self { incarnation: known.then_some(Incarnation(request.incarnation)), revision }
    }

    /// Moves the cursor to the state, and returns the missing events: deltas, or a snapshot when the
    /// cursor is too old, belongs to another incarnation, or is ahead of the state.
    fn advance(&mut self, state: &MetaState) -> Vec<Event> {
        let header = state.header();
        let deltas = (self.incarnation == Some(header.incarnation))
            .then(|| state.deltas_since(self.revision, usize::MAX))
            .flatten();
        self.incarnation = Some(header.incarnation);
        self.revision = header.revision;
        match deltas {
            Some(deltas) => {
                let published = |delta: &Arc<v1::CatalogDelta>| {
                    let mut delta = delta.as_ref().clone();
                    state.publish_changes(&mut delta.table_upserts);
                    state.publish_starts(&mut delta.node_upserts);
                    delta.next_route_id = state.next_route_id().get();
                    Event::Delta(delta)
                };
                deltas.iter().map(published).collect()
            }
            None => vec![Event::Snapshot(state.published_snapshot())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{directory, registration, run, table, with_groups, with_nodes};
    use tidewater_proto::v1::meta_command::Kind;

    fn cursor(from_revision: u64, incarnation: u64) -> WatchCursor {
        WatchCursor::new(&v1::WatchRequest { from_revision, incarnation, ..Default::default() })
    }

    fn kinds(events: &[Event]) -> Vec<&'static str> {
        let kind = |event: &Event| match event {
            Event::Snapshot(_) => "snapshot",
            Event::Delta(_) => "delta",
            Event::CurrentRevision(_) => "current",
        };
        events.iter().map(kind).collect()
    }

    #[test]
    fn cursor_receives_missing_deltas_or_a_snapshot() {
        let mut state = with_nodes(3);
        let revision = state.header().revision.get();
        assert_eq!(kinds(&cursor(0, 0).advance(&state)), ["snapshot"]);
        assert_eq!(kinds(&cursor(revision, 1).advance(&state)), [""; 0]);
        assert_eq!(kinds(&cursor(revision - 2, 1).advance(&state)), ["delta", "delta"]);
        assert_eq!(kinds(&cursor(revision - 2, 2).advance(&state)), ["snapshot"]);
        assert_eq!(kinds(&cursor(revision + 1, 1).advance(&state)), ["snapshot"]);
        let mut at = cursor(0, 0);
        at.advance(&state);
        run(&mut state, Kind::RegisterNode(registration(4))).unwrap();
        assert_eq!(kinds(&at.advance(&state)), ["delta"]);
    }

    #[test]
    fn watchers_learn_of_changes_of_tables_in_progress() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        let mut watcher = cursor(0, 0);
        watcher.advance(&state);
        let truncate = v1::TruncateTableRequest { request_id: directory(2), name: "t".into() };
        run(&mut state, Kind::BeginTruncateTable(truncate)).unwrap();
        let events = watcher.advance(&state);
        let [Event::Delta(delta)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(delta.next_route_id, state.next_route_id().get());
        let expected = v1::TableChange { number: 1, ..v1::TableChange::default() };
        assert_eq!(delta.table_upserts[0].change, Some(expected.clone()));
        let [Event::Snapshot(snapshot)] = &cursor(0, 0).advance(&state)[..] else { panic!() };
        assert!(snapshot.has_table_changes);
        assert_eq!(snapshot.next_route_id, state.next_route_id().get());
        assert_eq!(snapshot.tables[0].change, Some(expected));
    }

    #[tokio::test]
    async fn slow_watcher_gets_an_error() {
        let (queue, mut events) = mpsc::channel(3);
        let event = || Event::CurrentRevision(1);
        let limit = Duration::from_millis(10);
        assert!(send(&queue, event(), limit).await.unwrap());
        assert!(send(&queue, event(), limit).await.unwrap());
        let error = send(&queue, event(), limit).await.unwrap_err();
        assert_eq!(error.reason, Reason::Overloaded);
        queue.try_send(Err(error.into())).unwrap();
        drop(queue);
        assert!(events.recv().await.unwrap().is_ok());
        assert!(events.recv().await.unwrap().is_ok());
        assert!(events.recv().await.unwrap().is_err());
    }
}
