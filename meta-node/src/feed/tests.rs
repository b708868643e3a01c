use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

use super::*;
use crate::commands::testing::{run, with_nodes};

fn set(state: &mut MetaState, to: NodeState) {
    let set = v1::SetNodeState { node_id: 101, state: to.into() };
    run(state, Kind::SetNodeState(set)).unwrap();
}

#[tokio::test]
async fn snapshot_is_encoded_once_for_each_revision() {
    let mut state = with_nodes(3);
    let view = CatalogView::new(state.clone());
    let feed = Arc::new(CatalogFeed::new(view.clone()));
    let waiting = (0..8).map(|_| {
        let feed = Arc::clone(&feed);
        tokio::spawn(async move { feed.snapshot().await.unwrap() })
    });
    let waiting: Vec<_> = waiting.collect();
    let mut snapshots = Vec::new();
    for waiting in waiting {
        snapshots.push(waiting.await.unwrap());
    }
    let first = feed.snapshot().await.unwrap();
    assert!(snapshots.iter().all(|snapshot| Arc::ptr_eq(snapshot, &first)));
    set(&mut state, NodeState::Down);
    view.publish(state.clone());
    let second = feed.snapshot().await.unwrap();
    assert_eq!(
        (first.revision.get() + 1, second.revision),
        (second.revision.get(), state.header().revision)
    );
}

#[tokio::test]
async fn other_tasks_run_between_the_turns_of_watchers() {
    let feed = Arc::new(CatalogFeed::new(CatalogView::new(with_nodes(1))));
    let prepared = Arc::new(AtomicUsize::new(0));
    let watchers: Vec<_> = (0..100)
        .map(|_| {
            let (feed, prepared) = (Arc::clone(&feed), Arc::clone(&prepared));
            let prepare = move || prepared.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move { feed.in_turn(prepare).await.unwrap() })
        })
        .collect();
    // All watchers are ready to run before this task.
    let before = Arc::clone(&prepared);
    let other = tokio::spawn(async move { before.load(Ordering::Relaxed) });
    assert!(other.await.unwrap() <= MAX_TURNS);
    for watcher in watchers {
        watcher.await.unwrap();
    }
    assert_eq!(prepared.load(Ordering::Relaxed), 100);
}

#[tokio::test]
async fn encoding_continues_after_its_caller_has_ended() {
    let state = with_nodes(3);
    let feed = CatalogFeed::new(CatalogView::new(state));
    // The first poll starts the encoding.
    let _ = feed.snapshot().now_or_never();
    let started = feed.snapshot.lock().await.clone().expect("the encoded snapshot is kept");
    assert!(Arc::ptr_eq(&started, &feed.snapshot().await.unwrap()));
}

#[test]
fn deltas_are_encoded_once_and_bounded() {
    let mut state = with_nodes(3);
    let feed = CatalogFeed::new(CatalogView::new(state.clone()));
    let from = state.header().revision;
    for _ in 0..3 {
        set(&mut state, NodeState::Down);
        set(&mut state, NodeState::Up);
    }
    let events = |limit| feed.deltas_since(&state, from, TopicSet::ALL, limit).unwrap();
    let (first, reached) = events(4);
    assert_eq!((first.len(), reached.get()), (4, from.get() + 4));
    let (again, reached) = events(usize::MAX);
    assert_eq!((again.len(), reached), (6, state.header().revision));
    assert!(first.iter().zip(&again).all(|(a, b)| a.as_ptr() == b.as_ptr()), "not shared");
    assert_eq!(feed.deltas_since(&state, reached, TopicSet::ALL, 9), Some((vec![], reached)));
    let ahead = Revision(reached.get() + 1);
    assert_eq!(feed.deltas_since(&state, ahead, TopicSet::ALL, 9), None);

    let mut cache = DeltaCache::default();
    cache.enter(Incarnation(1));
    let large = |revision| CatalogDelta {
        revision,
        hook_deletes: vec!["x".repeat(DELTA_BYTES / 8)],
        ..CatalogDelta::default()
    };
    for revision in 1..=9 {
        cache.get(&large(revision), &state);
        assert!(cache.bytes <= DELTA_BYTES, "{}", cache.bytes);
    }
    assert!((1..9).contains(&cache.deltas.len()), "{}", cache.deltas.len());
    cache.enter(Incarnation(2));
    assert!(cache.deltas.is_empty(), "revisions of another incarnation");
}
