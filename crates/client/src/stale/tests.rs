mod fixture;

use std::time::Duration;

use tidewater_common::catalog_hint::{CatalogHint, RegionPresence, ServedRegion};
use tidewater_common::ids::{CatalogVersion, GroupId, RegionId, Revision, SchemaVersion, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::TableSchema;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use self::fixture::catalog;
use super::{ExpectedChange, LONGEST_WAIT, StaleWaits, UsedCatalog};
use crate::catalog::{Catalog, CatalogReads};
use crate::client::Client;
use crate::core::REFRESH_TIMEOUT;
use crate::error::ClientError;
use crate::fake::{
    Answer, ChangesAnswer, FakeCluster, ScanAnswer, WatchMode, keys, rows, table_info,
};
use crate::options::{ClientOptions, WriterOptions};
use crate::scan::ScanSpec;

fn hint(region: u64, presence: RegionPresence) -> Option<CatalogHint> {
    Some(CatalogHint::Region { region: RegionId(region), presence })
}

fn served(table: u32, version: u32, range: Option<KeyRange>) -> RegionPresence {
    RegionPresence::Served(ServedRegion {
        table: TableId(table),
        schema_version: SchemaVersion(version),
        group: GroupId(1),
        range,
    })
}

/// The change that a call to region 12 of table 1 at schema version 1 waits for.
fn expected(reason: Reason, hint: Option<CatalogHint>) -> String {
    let catalog = catalog();
    let table = catalog.table(TableId(1)).unwrap();
    let used = UsedCatalog::new(&catalog, Some(table), catalog.route(RegionId(12)));
    let refusal = Refusal { catalog_hint: hint.map(Box::new), ..Refusal::new(reason, "stale") };
    let change = ExpectedChange::new(&refusal, &used);
    let certainty = if change.is_certain { "certain" } else { "possible" };
    let condition = match change.condition {
        super::Condition::Schema(table, version) => format!("schema {version} of {table}"),
        super::Condition::OtherRoute(route) => format!("route of {}", route.region),
        super::Condition::OtherVersion(version) => format!("routes after {version}"),
        super::Condition::Revision(revision) => format!("revision {revision}"),
    };
    format!("{certainty}: {condition}")
}

#[test]
fn expected_change_follows_from_reason_and_hint() {
    use Reason::{KeyOutsideRegion, RegionFenced, RegionNotFound, RouteMoved, SchemaVersionStale};
    let own = KeyRange::new(b"g", Some(b"p".to_vec()));
    let other = KeyRange::new(b"g", Some(b"k".to_vec()));
    let revision = CatalogHint::Catalog { revision: Revision(30), version: CatalogVersion(9) };
    for (reason, hint, is_expected) in [
        (SchemaVersionStale, None, "certain: schema 2 of 1"),
        (SchemaVersionStale, hint(12, served(1, 3, None)), "certain: schema 3 of 1"),
        (SchemaVersionStale, hint(12, served(1, 1, None)), "possible: schema 2 of 1"),
        // Of another region, of another table.
        (SchemaVersionStale, hint(13, served(1, 9, None)), "certain: schema 2 of 1"),
        (SchemaVersionStale, hint(12, served(2, 9, None)), "certain: schema 2 of 1"),
        (RegionNotFound, None, "possible: route of 12"),
        (RegionNotFound, hint(12, RegionPresence::Unknown), "possible: route of 12"),
        (RegionNotFound, hint(12, RegionPresence::Dropped), "certain: route of 12"),
        (RouteMoved, hint(12, RegionPresence::Moved(GroupId(9))), "possible: route of 12"),
        (RegionNotFound, hint(13, RegionPresence::Dropped), "possible: route of 12"),
        (KeyOutsideRegion, hint(12, served(1, 1, Some(other.clone()))), "certain: route of 12"),
        (KeyOutsideRegion, hint(12, served(1, 1, Some(own.clone()))), "possible: route of 12"),
        (KeyOutsideRegion, hint(12, served(2, 1, Some(other))), "possible: route of 12"),
        (KeyOutsideRegion, hint(12, served(1, 1, None)), "possible: route of 12"),
        (RegionFenced, hint(12, served(1, 1, Some(own))), "possible: route of 12"),
        (RegionNotFound, Some(revision), "certain: revision 30"),
    ] {
        let found = expected(reason, hint.clone());
        assert_eq!(found, is_expected, "{reason:?} {hint:?}");
    }
}

#[test]
fn expected_change_is_met_by_a_later_catalog() {
    let catalog = catalog();
    let table = catalog.table(TableId(1)).unwrap();
    let used = UsedCatalog::new(&catalog, Some(table), catalog.route(RegionId(12)));
    let delta = |change: fn(&mut tidewater_proto::v1::CatalogDelta)| {
        let mut delta = fixture::delta();
        change(&mut delta);
        catalog.with_delta(&delta).unwrap()
    };
    let unrelated = delta(|delta| delta.node_deletes = vec![22]);
    let dropped = delta(|delta| {
        delta.catalog_version = 6;
        delta.table_deletes = vec![1];
        delta.route_deletes = vec![11, 12, 13];
    });
    let schema = ExpectedChange::new(&Refusal::new(Reason::SchemaVersionStale, "x"), &used);
    let route = ExpectedChange::new(&Refusal::new(Reason::RegionNotFound, "x"), &used);
    let routes = ExpectedChange::for_missing_route(&catalog);
    for change in [&schema, &route, &routes] {
        assert!(!change.is_in(&catalog), "{change:?}");
        assert!(!change.is_in(&unrelated), "{change:?}");
        assert!(change.is_in(&dropped), "{change:?}");
    }
    let restored = tidewater_proto::v1::CatalogSnapshot {
        cluster_id: catalog.cluster_id().to_string(),
        incarnation: 2,
        ..Default::default()
    };
    assert!(route.is_in(&Catalog::from_snapshot(&restored).unwrap()));
}

#[test]
fn waits_double_with_jitter_up_to_a_limit() {
    let first = Duration::from_secs(1);
    let longest = |ended, bits| StaleWaits { ended, ..StaleWaits::default() }.longest(first, bits);
    for (ended, seconds) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 8), (u32::MAX, 8)] {
        let full = Duration::from_secs(seconds);
        assert_eq!(longest(ended, 0), full);
        for bits in [1, 12_345_678, u64::MAX] {
            let wait = longest(ended, bits);
            assert!(wait >= full && wait <= full + full / 4, "{ended} {bits} {wait:?}");
        }
    }
    assert_ne!(longest(0, 1), longest(0, 2));
    assert_eq!(longest(9, 0), LONGEST_WAIT);
}

/// The schema of the fake cluster's table after an alter that changes its version only.
fn altered_schema() -> TableSchema {
    let mut wire = tidewater_proto::v1::TableSchema::from(&table_info().schema);
    wire.version = 2;
    TableSchema::try_from(&wire).unwrap()
}

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(600);

/// Client that refreshes the catalog after this time without a change on the watch.
async fn refreshing_client(cluster: &FakeCluster, refresh_after: Duration) -> Client {
    let options = ClientOptions { refresh_after, deadline: NEVER, ..cluster.options() };
    Client::connect(options).await.unwrap()
}

/// Rows 0 to 29 in three regions; the regions are then altered to schema version 2, but not the catalog.
async fn altered(mode: WatchMode, refresh_after: Duration) -> (FakeCluster, Client) {
    let cluster = FakeCluster::start(&[10, 20], 1).await;
    let client = refreshing_client(&cluster, refresh_after).await;
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    writer.put_rows(rows(0..30)).await.unwrap();
    let mut state = cluster.state.lock();
    state.schema = altered_schema();
    state.watch_mode = mode;
    state.writes.clear();
    drop(state);
    (cluster, client)
}

/// Waits until this number of refused calls waits or has waited for a change.
async fn until_waits(client: &Client, waits: u64) {
    while client.catalog_reads().waits < waits {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Returns the numbers of calls for the whole catalog and for changes.
fn reads(cluster: &FakeCluster) -> (u32, usize) {
    let state = cluster.state.lock();
    (state.snapshots_read, state.changes_read.len())
}

#[tokio::test]
async fn refused_calls_wait_for_the_schema_on_the_watch() {
    let (cluster, client) = altered(WatchMode::Deltas, NEVER).await;
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    let asked = keys(&[5]);
    let (written, scanned, found, ()) = tokio::join!(
        writer.put_rows(rows([1, 2])),
        async { client.scan(ScanSpec::all("t")).await.unwrap().collect().await },
        client.get("t", &asked, None),
        async {
            until_waits(&client, 3).await;
            cluster.change(|state| state.publish_schema());
        },
    );
    assert_eq!(written.unwrap().acknowledged, 2);
    // The scan has announced its columns.
    assert!(matches!(scanned, Err(ClientError::BadInput(_))), "{scanned:?}");
    assert_eq!(found.unwrap().num_rows(), 1);
    // The catalog was read when the client connected only, and each refused call was sent once.
    assert_eq!(reads(&cluster), (1, 0));
    assert_eq!(client.catalog_reads(), CatalogReads { snapshots: 1, changes: 0, waits: 3 });
    let serials: Vec<_> = cluster.state.lock().writes.iter().map(|write| write.serial).collect();
    assert_eq!(serials, [1, 1, 2], "a refused opening write, then both writes");
}

#[tokio::test]
async fn silent_watch_leads_to_a_shared_read() {
    let refresh_after = Duration::from_millis(500);
    let (cluster, client) = altered(WatchMode::Silent, refresh_after).await;
    let writes = (0..50).map(|id| {
        let client = client.clone();
        async move {
            let writer = client.writer("t", WriterOptions::default()).await.unwrap();
            writer.put_rows(rows([id])).await.unwrap()
        }
    });
    let started = Instant::now();
    let (reports, ()) = tokio::join!(futures::future::join_all(writes), async {
        until_waits(&client, 50).await;
        cluster.change(|state| state.publish_schema());
    });
    assert_eq!(reports.iter().map(|report| report.acknowledged).sum::<u64>(), 50);
    assert!(started.elapsed() >= refresh_after);
    let (snapshots, changes) = reads(&cluster);
    assert_eq!(snapshots, 1);
    // At most a few refreshes in each period, however many writers wait.
    let periods = (started.elapsed().as_millis() / refresh_after.as_millis()) as usize;
    assert!((1..=3 * periods).contains(&changes), "{changes} reads of changes for 50 writers");
}

#[tokio::test]
async fn live_watch_makes_catalog_reads_needless() {
    let (cluster, client) = altered(WatchMode::KeepAlive, Duration::from_secs(3)).await;
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    let alter = async {
        // Two waits longer than the time after which a silent watch leads to a refresh.
        while client.catalog_reads().waits < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.change(|_| ());
        }
        cluster.state.lock().watch_mode = WatchMode::Deltas;
        cluster.change(|state| state.publish_schema());
    };
    let (written, ()) = tokio::join!(writer.put_rows(rows([1])), alter);
    written.unwrap();
    assert_eq!(reads(&cluster), (1, 0));
}

#[tokio::test]
async fn false_hints_only_delay_calls() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = refreshing_client(&cluster, Duration::from_millis(50)).await;
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    writer.put_rows(rows([0])).await.unwrap();
    let ahead =
        CatalogHint::Catalog { revision: Revision(u64::MAX), version: CatalogVersion(u64::MAX) };
    let hints = [
        (Reason::SchemaVersionStale, hint(100, served(7, u32::MAX, None))),
        (Reason::SchemaVersionStale, hint(100, served(8, 2, Some(KeyRange::whole())))),
        (Reason::RegionNotFound, hint(100, RegionPresence::Dropped)),
        (Reason::RegionNotFound, hint(u64::MAX, RegionPresence::Dropped)),
        (Reason::KeyOutsideRegion, hint(100, served(7, 1, Some(KeyRange::new(b"x", None))))),
        (Reason::RegionNotFound, Some(ahead)),
    ];
    for (id, (reason, hint)) in (1..).zip(hints) {
        let mut refusal = Refusal::new(reason, "injected");
        refusal.catalog_hint = hint.map(Box::new);
        cluster.state.lock().answers.push_back(Answer::Refuse(refusal.clone()));
        cluster.state.lock().scan_answers.push_back(ScanAnswer::Refuse(refusal.clone()));
        let scan = async { client.scan(ScanSpec::all("t")).await.unwrap().collect().await };
        let (written, scanned) = tokio::join!(writer.put_rows(rows([id])), scan);
        assert_eq!(written.unwrap().acknowledged, 1, "{refusal:?}");
        scanned.unwrap();
    }
    assert_eq!(cluster.state.lock().ids(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(reads(&cluster).0, 1);
}

#[tokio::test]
async fn wait_for_a_missing_change_ends_at_deadline() {
    let cluster = FakeCluster::start(&[], 1).await;
    let refresh_after = Duration::from_millis(50);
    let deadline = Duration::from_millis(700);
    let options = ClientOptions { refresh_after, deadline, ..cluster.options() };
    let client = Client::connect(options).await.unwrap();
    {
        let mut state = cluster.state.lock();
        state.schema = altered_schema();
        state.watch_mode = WatchMode::Silent;
        state.changes_answers.push_back(ChangesAnswer::Never);
    }
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    let started = Instant::now();
    let error = writer.put_rows(rows([1])).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Failed { cause, .. }
        if cause.reason == Reason::SchemaVersionStale),
        "{error}"
    );
    let elapsed = started.elapsed();
    assert!(elapsed < REFRESH_TIMEOUT, "{elapsed:?} with a deadline of {deadline:?}");
}

#[tokio::test]
async fn long_wait_ends_at_the_deadline_of_its_call() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let change = ExpectedChange {
        incarnation: client.catalog().incarnation(),
        condition: super::Condition::Revision(Revision(u64::MAX)),
        is_certain: true,
    };
    let mut waits = StaleWaits { ended: 3, ..StaleWaits::default() };
    let started = Instant::now();
    let until = started + Duration::from_millis(100);
    client.core.wait_for_change(&change, &mut waits, Duration::ZERO, until).await.unwrap();
    let elapsed = started.elapsed();
    assert!(elapsed < LONGEST_WAIT, "{elapsed:?} with a deadline of 100 ms");
}

fn has_node(client: &Client, node: u64) -> bool {
    client.catalog().node(node.into()).is_some()
}

fn node_delta(node_id: u64) -> tidewater_proto::v1::CatalogDelta {
    let node = tidewater_proto::v1::Node { node_id, ..Default::default() };
    tidewater_proto::v1::CatalogDelta { node_upserts: vec![node], ..Default::default() }
}

#[tokio::test]
async fn refresh_reads_only_the_changes() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.state.lock().watch_mode = WatchMode::Silent;
    client.core.refresh_catalog().await.unwrap();
    cluster.state.lock().publish_delta(node_delta(50));
    cluster.state.lock().publish_delta(node_delta(51));
    assert!(!has_node(&client, 51));
    client.core.refresh_catalog().await.unwrap();
    assert!(has_node(&client, 50) && has_node(&client, 51));
    assert_eq!(reads(&cluster), (1, 2));
}

#[tokio::test]
async fn refresh_reads_whole_catalog_if_changes_are_unusable() {
    let unsupported = Refusal::new(Reason::Unsupported, "an older release");
    let page = |revision, deltas: &[u64], snapshot_needed| {
        let delta = |revision: &u64| tidewater_proto::v1::CatalogDelta {
            revision: *revision,
            ..node_delta(60)
        };
        ChangesAnswer::Page(tidewater_proto::v1::GetCatalogChangesResponse {
            revision,
            deltas: deltas.iter().map(delta).collect(),
            snapshot_needed,
        })
    };
    for answer in [
        ChangesAnswer::Refuse(unsupported),
        page(9, &[], true),
        page(u64::MAX, &[], false),
        page(9, &[9], false),
    ] {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        cluster.state.lock().watch_mode = WatchMode::Silent;
        client.core.refresh_catalog().await.unwrap();
        cluster.state.lock().publish_delta(node_delta(50));
        cluster.state.lock().catalog.nodes.push(node_delta(50).node_upserts[0].clone());
        cluster.state.lock().changes_answers.push_back(answer.clone());
        client.core.refresh_catalog().await.unwrap();
        assert!(has_node(&client, 50) && !has_node(&client, 60), "{answer:?}");
        assert_eq!(reads(&cluster).0, 2, "{answer:?}");
    }
}

#[tokio::test]
async fn concurrent_refreshes_share_a_read() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let refreshes = (0..200).map(|_| client.core.refresh_catalog());
    for refreshed in futures::future::join_all(refreshes).await {
        refreshed.unwrap();
    }
    let (snapshots, changes) = reads(&cluster);
    assert_eq!(snapshots, 1);
    assert!(changes <= 3, "{changes} reads for 200 refreshes");
}

#[tokio::test]
async fn refresh_serves_only_earlier_requests() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.state.lock().watch_mode = WatchMode::Silent;
    client.core.refresh_catalog().await.unwrap();
    // The answer of the first refresh is delayed: it precedes the change.
    let slow = Refusal::new(Reason::Overloaded, "slow").retry_after(Duration::from_millis(50));
    cluster.state.lock().changes_answers.push_back(ChangesAnswer::Refuse(slow));
    let first = client.core.refresh_catalog();
    let second = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let page = cluster.state.lock().changes_since(client.catalog().revision().get());
        cluster.state.lock().changes_answers.push_back(ChangesAnswer::Page(page));
        cluster.state.lock().publish_delta(node_delta(50));
        client.core.refresh_catalog().await.unwrap();
        assert!(has_node(&client, 50));
    };
    let (first, ()) = tokio::join!(first, second);
    first.unwrap();
}
