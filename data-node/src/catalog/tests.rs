use std::sync::Arc;

use tidewater_common::ids::TableId;
use tidewater_common::keys::global_key;

use super::*;

fn route(route_id: u64, table: u32, start: &[u8], end: Option<Vec<u8>>) -> v1::Route {
    let start = global_key(TableId(table), start).into();
    v1::Route { route_id, start, end: end.map(Into::into), group_id: 1, ..v1::Route::default() }
}

fn snapshot(revision: u64) -> Event {
    Event::Snapshot(v1::CatalogSnapshot {
        revision,
        incarnation: 1,
        next_route_id: 9,
        tables: vec![v1::Table { table_id: 3, ..v1::Table::default() }],
        routes: vec![
            route(7, 3, b"", Some(global_key(TableId(3), b"m"))),
            route(8, 3, b"m", Some(global_key(TableId(4), b""))),
        ],
        ..v1::CatalogSnapshot::default()
    })
}

#[tokio::test]
async fn records_follow_snapshots_and_deltas() {
    let catalog = WatchedCatalog::default();
    catalog.follow(&snapshot(5));
    let region = |id| catalog.records.read().regions.get(&id).cloned();
    let place = |start: &[u8], end: Option<&[u8]>| RegionPlace {
        table_id: 3,
        group_id: 1,
        incarnation: 1,
        start: start.to_vec(),
        end: end.map(<[u8]>::to_vec),
    };
    assert_eq!(region(7), Some(place(b"", Some(b"m"))));
    assert_eq!(region(8), Some(place(b"m", None)));
    // A region that was made after the cluster was restored.
    let restored = v1::Route { incarnation: 2, ..route(9, 5, b"", None) };
    catalog.follow(&Event::Delta(v1::CatalogDelta {
        revision: 6,
        route_upserts: vec![restored],
        ..v1::CatalogDelta::default()
    }));
    assert_eq!(region(9).map(|place| place.incarnation), Some(2));
    catalog.follow(&Event::Delta(v1::CatalogDelta {
        revision: 7,
        next_route_id: 12,
        route_deletes: vec![7],
        table_deletes: vec![3],
        node_upserts: vec![v1::Node {
            node_id: 9,
            state: v1::NodeState::Up.into(),
            ..v1::Node::default()
        }],
        group_upserts: vec![v1::Group { group_id: 2, ..v1::Group::default() }],
        ..v1::CatalogDelta::default()
    }));
    assert_eq!(region(7), None);
    let seen = |records: &CatalogRecords| {
        Ok((records.tables.len(), records.nodes.len(), records.groups.len()))
    };
    assert_eq!(catalog.check(7, seen).await.unwrap(), (0, 1, 1));
    assert!(catalog.is_up(9) && !catalog.is_up(8));
    assert_eq!(catalog.records.read().next_region_id, 12);
    catalog.follow(&snapshot(8));
    assert_eq!(catalog.check(0, seen).await.unwrap(), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn call_waits_for_the_revision_that_it_names() {
    let catalog = Arc::new(WatchedCatalog::default());
    let behind = |answer: Result<(), Refusal>| answer.unwrap_err().reason;
    assert_eq!(behind(catalog.check(0, |_| Ok(())).await), Reason::CatalogBehind);
    catalog.follow(&snapshot(5));
    catalog.check(5, |_| Ok(())).await.unwrap();
    assert_eq!(behind(catalog.check(6, |_| Ok(())).await), Reason::CatalogBehind);
    let waiting = Arc::clone(&catalog);
    let waiting = tokio::spawn(async move { waiting.check(6, |_| Ok(())).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    catalog.follow(&snapshot(6));
    waiting.await.unwrap().unwrap();
}

fn publication(revision: u64, published_epoch: u64) -> Event {
    let table = v1::Table { table_id: 3, published_epoch, ..v1::Table::default() };
    let table_upserts = vec![table];
    Event::Delta(v1::CatalogDelta { revision, table_upserts, ..v1::CatalogDelta::default() })
}

#[tokio::test(start_paused = true)]
async fn publication_is_awaited_while_the_watch_is_alive() {
    let catalog = Arc::new(WatchedCatalog::default());
    catalog.follow(&snapshot(5));
    let wait = || {
        let catalog = Arc::clone(&catalog);
        let begun = tokio::time::Instant::now();
        tokio::spawn(async move {
            let waited = catalog.wait_for_publication(3, Epoch(200)).await;
            (waited.map_err(|refused| refused.reason), begun.elapsed())
        })
    };
    let tenth = Duration::from_millis(100);
    let silent = wait();
    assert_eq!(silent.await.unwrap().0, Err(Reason::CatalogBehind));

    let unpublished = wait();
    for event in [Event::CurrentRevision(5), publication(6, 100)] {
        tokio::time::sleep(tenth).await;
        catalog.follow(&event);
    }
    let (waited, time) = unpublished.await.unwrap();
    assert_eq!((waited, time.as_secs()), (Ok(()), WAIT.as_secs()));

    let published = wait();
    tokio::time::sleep(tenth).await;
    catalog.follow(&publication(7, 200));
    let (waited, time) = published.await.unwrap();
    assert_eq!(waited, Ok(()));
    assert!(time < 2 * tenth, "{time:?}");
    assert_eq!(wait().await.unwrap().0, Ok(()));
}

#[test]
fn members_of_a_group_are_those_of_its_record() {
    let catalog = WatchedCatalog::default();
    catalog.follow(&snapshot(5));
    assert_eq!(catalog.members(GroupId(2)), None);
    let group = v1::Group { group_id: 2, first_members: vec![1], ..v1::Group::default() };
    let upsert = |revision, group| {
        catalog.follow(&Event::Delta(v1::CatalogDelta {
            revision,
            group_upserts: vec![group],
            ..v1::CatalogDelta::default()
        }));
        catalog.members(GroupId(2))
    };
    // The leader has not reported its members.
    assert_eq!(upsert(6, group.clone()), None);
    let reported = v1::Group {
        voters: vec![4, 5],
        learners: vec![6],
        membership_term: 3,
        membership_index: 8,
        ..group
    };
    let members = [4, 5, 6].map(NodeId).to_vec();
    assert_eq!(upsert(7, reported), Some((log_id(3, 8), members)));
}
