use bytes::Buf;
use prost::Message;
use tidewater_proto::v1::{meta_command::Kind, watch_event::Event};

use super::*;
use crate::commands::testing::{registration, run, table, with_groups, with_nodes};

fn request(from_revision: u64, incarnation: u64) -> v1::WatchRequest {
    v1::WatchRequest { from_revision, incarnation, ..Default::default() }
}

#[test]
fn cursor_misses_deltas_or_a_snapshot() {
    let mut state = with_nodes(3);
    let revision = state.header().revision.get();
    let missing = |state: &MetaState, from_revision, incarnation| {
        WatchCursor::new(&request(from_revision, incarnation)).missing(state).unwrap()
    };
    assert_eq!(missing(&state, 0, 0), MissingEvents::Snapshot);
    assert_eq!(missing(&state, 0, 9), MissingEvents::Snapshot);
    assert_eq!(missing(&state, revision, 1), MissingEvents::Nothing);
    assert_eq!(missing(&state, revision - 2, 1), MissingEvents::Deltas);
    assert_eq!(missing(&state, revision + 9, 0), MissingEvents::Snapshot, "before a restore");
    for _ in 0..=crate::catalog::DELTAS_KEPT {
        let boot = state.node(101.into()).unwrap().boot.get() + 1;
        let again = v1::RegisterNode { boot, ..registration(1) };
        run(&mut state, Kind::RegisterNode(again)).unwrap();
    }
    assert_eq!(missing(&state, revision, 1), MissingEvents::Snapshot, "no longer kept");
}

#[test]
fn cursor_ahead_of_the_state_is_refused() {
    let state = with_nodes(1);
    let revision = state.header().revision.get();
    for (from_revision, incarnation) in [(revision + 1, 1), (1, 2), (u64::MAX, u64::MAX)] {
        let refusal = Watcher::new(&request(from_revision, incarnation), &state).unwrap_err();
        assert_eq!(refusal.reason, Reason::CatalogBehind);
        assert!(refusal.message.contains("watch from revision 0"), "{refusal}");
    }
    let unknown = v1::WatchRequest { topics: vec![1, 77], ..request(0, 0) };
    let refusal = Watcher::new(&unknown, &state).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidArgument);
}

#[test]
fn small_events_are_joined() {
    let event = |length: usize| Bytes::from(vec![7; length]);
    let lengths = |events: &[usize]| -> Vec<usize> {
        join_small(events.iter().copied().map(event).collect()).iter().map(Bytes::len).collect()
    };
    assert_eq!(lengths(&[]), [0; 0]);
    assert_eq!(lengths(&[10, 20, 30]), [60]);
    assert_eq!(
        lengths(&[PIECE_BYTES, 1, 2, PIECE_BYTES + 5, 3]),
        [PIECE_BYTES, 3, PIECE_BYTES + 5, 3]
    );
    let single = event(9);
    assert_eq!(join_small(vec![single.clone()])[0].as_ptr(), single.as_ptr(), "not copied");
}

#[test]
fn catalog_above_the_limit_of_a_message_is_refused() {
    assert_eq!(check_length(&vec![Bytes::from(vec![0; 9])]), Ok(()));
    let half = Bytes::from(vec![0; MAX_RESPONSE_BYTES / 2 + 1]);
    let refusal = check_length(&vec![half.clone(), half]).unwrap_err();
    assert_eq!(refusal.reason, Reason::MessageTooLarge);
}

fn watcher(state: &MetaState) -> Watcher {
    Watcher::new(&request(0, 0), state).unwrap()
}

/// Decodes the events of encoded messages.
fn events(pieces: &[Bytes]) -> Vec<Event> {
    let mut bytes = Bytes::from(pieces.concat());
    let mut events = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes.get_u8(), 0);
        let length = bytes.get_u32() as usize;
        let event = v1::WatchEvent::decode(bytes.split_to(length)).unwrap();
        events.extend(event.event);
    }
    events
}

#[tokio::test]
async fn watcher_receives_a_snapshot_then_each_revision() {
    let mut state = with_nodes(3);
    let view = CatalogView::new(state.clone());
    let feed = CatalogFeed::new(view.clone());
    let (queue, mut pieces) = mpsc::channel(64);
    let mut watcher = watcher(&state);
    assert!(watcher.catch_up(&view, &feed, &queue).await.unwrap());
    let first = state.header().revision.get();
    for number in 4..=6 {
        run(&mut state, Kind::RegisterNode(registration(number))).unwrap();
    }
    view.publish(state.clone());
    assert!(watcher.catch_up(&view, &feed, &queue).await.unwrap());
    assert!(watcher.catch_up(&view, &feed, &queue).await.unwrap(), "nothing is missing");
    drop(queue);
    let mut received = Vec::new();
    while let Some(piece) = pieces.recv().await {
        received.push(piece.unwrap());
    }
    let revisions = events(&received).into_iter().map(|event| match event {
        Event::Snapshot(snapshot) => ("snapshot", snapshot.revision),
        Event::Delta(delta) => ("delta", delta.revision),
        Event::CurrentRevision(revision) => ("current", revision),
    });
    let expected =
        [("snapshot", first), ("delta", first + 1), ("delta", first + 2), ("delta", first + 3)];
    assert_eq!(revisions.collect::<Vec<_>>(), expected);
}

// A watcher that reads nothing keeps the pieces in its queue, not the catalog.
#[tokio::test(start_paused = true)]
async fn slow_watcher_of_a_large_catalog_is_cut_off() {
    let mut state = with_groups(1, 1);
    for number in 1..=20 {
        let names = (0..800).map(|column| format!("column_{column:04}"));
        let column = |name| v1::NewColumn { name, r#type: "int64".into(), ..Default::default() };
        let small = table(number, &format!("t{number}"));
        let columns = small.columns.iter().cloned().chain(names.map(column)).collect();
        let wide = v1::CreateTableRequest { columns, ..small };
        run(&mut state, Kind::CreateTable(wide)).unwrap();
    }
    let view = CatalogView::new(state.clone());
    let feed = CatalogFeed::new(view.clone());
    let snapshot = feed.snapshot().await.unwrap();
    let (queue, pieces) = mpsc::channel(4);
    let mut watcher = watcher(&state);
    let begun = tokio::time::Instant::now();
    let refusal = watcher.catch_up(&view, &feed, &queue).await.unwrap_err();
    assert_eq!((refusal.reason, begun.elapsed()), (Reason::Overloaded, SEND_TIMEOUT));
    assert_eq!(pieces.len(), 3, "one slot is reserved for the error");
    assert!(snapshot.event(TopicSet::ALL).len() > 6, "the queue holds a part");
    assert_eq!(Arc::strong_count(&snapshot), 2, "held by the feed and this test");
}

// All turns could be taken by slow watchers otherwise.
#[tokio::test(start_paused = true)]
async fn slow_watchers_delay_no_other() {
    let mut state = with_nodes(1);
    let view = CatalogView::new(state.clone());
    let feed = Arc::new(CatalogFeed::new(view.clone()));
    let mut slow = Vec::new();
    for _ in 0..64 {
        let (queue, pieces) = mpsc::channel(5);
        let mut watcher = watcher(&state);
        assert!(watcher.catch_up(&view, &feed, &queue).await.unwrap());
        send(&queue, current_revision(Revision(1)), SEND_TIMEOUT).await.unwrap();
        slow.push((watcher, queue, pieces));
    }
    let mut other = watcher(&state);
    let (queue, mut pieces) = mpsc::channel(16);
    assert!(other.catch_up(&view, &feed, &queue).await.unwrap());
    run(&mut state, Kind::RegisterNode(registration(2))).unwrap();
    view.publish(state.clone());
    let blocked = slow.into_iter().map(|(mut watcher, queue, pieces)| {
        let view = view.clone();
        let feed = Arc::clone(&feed);
        tokio::spawn(async move {
            let end = watcher.catch_up(&view, &feed, &queue).await;
            drop(pieces);
            end
        })
    });
    let blocked: Vec<_> = blocked.collect();
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    assert!(other.catch_up(&view, &feed, &queue).await.unwrap());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(pieces.recv().await.is_some() && pieces.recv().await.is_some());
    for blocked in blocked {
        let refusal = blocked.await.unwrap().unwrap_err();
        assert_eq!(refusal.reason, Reason::Overloaded);
    }
}

#[tokio::test]
async fn slow_watcher_gets_an_error() {
    let (queue, mut pieces) = mpsc::channel(3);
    let piece = || current_revision(Revision(1));
    let limit = Duration::from_millis(10);
    assert!(send(&queue, piece(), limit).await.unwrap());
    assert!(send(&queue, piece(), limit).await.unwrap());
    let error = send(&queue, piece(), limit).await.unwrap_err();
    assert_eq!(error.reason, Reason::Overloaded);
    queue.try_send(Err(error.into())).unwrap();
    drop(queue);
    assert!(pieces.recv().await.unwrap().is_ok());
    assert!(pieces.recv().await.unwrap().is_ok());
    assert!(pieces.recv().await.unwrap().is_err());
}
