//! The catalog watch: a snapshot, or what is missing since the watcher's cursor, then every change.
//!
//! Served by the leader only, so that a watcher is never held by a member that has been cut off. A
//! watcher that does not keep up is cut off with an error, for which one place of its queue is
//! always kept free.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tidewater_common::ids::{Incarnation, Revision};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::catalog::MetaState;
use crate::group::MetaGroup;

/// Events that wait for a watcher.
const QUEUE: usize = 64;
/// How long a full queue may stay full.
const SLOW: Duration = Duration::from_secs(10);
/// How often a watcher hears something when nothing changes.
const PROGRESS: Duration = Duration::from_secs(1);

/// Starts one watcher's stream.
pub(super) fn start(
    group: Arc<MetaGroup>,
    request: v1::WatchRequest,
) -> impl Stream<Item = Result<v1::WatchEvent, Status>> + Send + 'static {
    let (queue, events) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut cursor = Cursor::new(&request);
        if let Err(end) = follow(&group, &mut cursor, &queue).await {
            // Fails only when the watcher itself is gone.
            let _ = queue.try_send(Err(end.into()));
        }
    });
    ReceiverStream::new(events)
}

type Queue = mpsc::Sender<Result<v1::WatchEvent, Status>>;

async fn follow(group: &MetaGroup, cursor: &mut Cursor, queue: &Queue) -> Result<(), Refusal> {
    let mut revisions = group.view.subscribe();
    let mut progress = interval(PROGRESS);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        group.check_leading()?;
        revisions.mark_unchanged();
        let events = cursor.advance(&group.view.read());
        for event in events {
            if !send(queue, event, SLOW).await? {
                return Ok(());
            }
        }
        tokio::select! {
            _ = progress.tick() => {
                let current = Event::CurrentRevision(cursor.revision.get());
                if !send(queue, current, SLOW).await? {
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

/// Waits for two free places, and takes one: the other is for the error. `false`: the watcher is
/// gone.
async fn send(queue: &Queue, event: Event, limit: Duration) -> Result<bool, Refusal> {
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
                "the watcher took nothing for {} s: watch again from its revision",
                limit.as_secs()
            ),
        )),
    }
}

fn stopping() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "this meta node is stopping: watch another one")
}

/// Where a watcher is.
#[derive(Debug)]
struct Cursor {
    /// `None`: it needs a snapshot.
    incarnation: Option<Incarnation>,
    revision: Revision,
}

impl Cursor {
    fn new(request: &v1::WatchRequest) -> Self {
        let revision = Revision(request.from_revision);
        let known = request.from_revision != 0;
        Self { incarnation: known.then_some(Incarnation(request.incarnation)), revision }
    }

    /// What the watcher has still to see: deltas, or a snapshot when the cursor is too old, belongs
    /// to another incarnation, or is ahead of this state.
    fn advance(&mut self, state: &MetaState) -> Vec<Event> {
        let header = state.header();
        let deltas = (self.incarnation == Some(header.incarnation))
            .then(|| state.deltas_since(self.revision, usize::MAX))
            .flatten();
        self.incarnation = Some(header.incarnation);
        self.revision = header.revision;
        match deltas {
            Some(deltas) => {
                deltas.iter().map(|delta| Event::Delta(delta.as_ref().clone())).collect()
            }
            None => vec![Event::Snapshot(state.catalog_snapshot())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{registration, run, with_nodes};
    use tidewater_proto::v1::meta_command::Kind;

    fn cursor(from_revision: u64, incarnation: u64) -> Cursor {
        Cursor::new(&v1::WatchRequest { from_revision, incarnation })
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
    fn a_cursor_gets_what_it_lacks() {
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

    #[tokio::test]
    async fn a_slow_watcher_is_cut_off_with_an_error() {
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
