//! A deployment that begins with known routes: clients race to make them the first catalog, and open the table.

use std::sync::Arc;

use futures::future::try_join_all;
use tidewater_client::admin::{NewColumn, RouteChanges};
use tidewater_client::catalog::{RouteDescriptor, RouteEngine};
use tidewater_client::{Client, ClientError, NewTable, WriterOptions};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::ids::{CatalogVersion, GroupId, RegionId, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::Reason;

use crate::support::wait_for_level;

const TABLE: &str = "restored";
const RACERS: usize = 16;

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<()> {
    if found == expected { Ok(()) } else { Err(failed(format!("{what}: {found:?}, {expected:?}"))) }
}

fn expect_refusal<T>(
    what: &str,
    outcome: std::result::Result<T, ClientError>,
    reason: Reason,
) -> Result<()> {
    let found = outcome.err().and_then(|error| error.refusal().map(|refusal| refusal.reason));
    expect(what, found, Some(reason))
}

/// Returns the definition of a table that is reserved.
pub(crate) fn definition(name: &str) -> NewTable {
    NewTable {
        name: name.to_owned(),
        columns: vec![NewColumn::new("id", "int64", false), NewColumn::new("name", "utf8", true)],
        primary_key: vec!["id".to_owned()],
        time_column: None,
        write_mode: WriteMode::Upsert,
        hash_columns: Vec::new(),
        vnode_count: 0,
        regions: 0,
        ttl_ms: None,
        compaction_window: None,
        holds_events: false,
        refresh: None,
    }
}

/// Routes of the first table: half of the keys in each of two groups, from a key that differs between callers.
fn known_routes(caller: u8) -> Result<RouteEngine> {
    let engine = RouteEngine::with_default_route(GroupId(1)).map_err(failed)?;
    let upper = KeyRange { start: vec![0, 0, 0, 1, 0x80, caller], end: None };
    engine.update_route(upper, GroupId(2)).map_err(failed)?;
    Ok(engine)
}

async fn connect(cluster: &Cluster) -> Result<Client> {
    Client::connect(options(cluster)).await.map_err(failed)
}

/// Lets callers with different routes race for the first catalog: one wins, and all have its routes.
async fn race_for_the_first_catalog(cluster: &Cluster) -> Result<()> {
    let racers = (0..RACERS).map(|caller| async move {
        let client = connect(cluster).await?;
        let engine = Arc::new(known_routes(u8::try_from(caller).unwrap_or(0))?);
        let ensured =
            client.catalog_store().ensure(&engine, definition(TABLE)).await.map_err(failed)?;
        Ok::<_, HarnessError>((ensured, engine))
    });
    let ended = try_join_all(racers).await?;
    expect("winners", ended.iter().filter(|(has_saved, _)| *has_saved).count(), 1)?;
    let of = |engine: &RouteEngine| {
        let (at, routes) = engine.routes();
        (at.version, routes.iter().map(|route| route.descriptor().clone()).collect::<Vec<_>>())
    };
    let (version, routes) = of(&ended[0].1);
    expect("version", version, CatalogVersion(1))?;
    expect("routes", routes.len(), 2)?;
    for (_, engine) in &ended {
        expect("routes of a caller", of(engine), (version, routes.clone()))?;
    }
    Ok(())
}

/// Lets callers race to save on the same version (C2). Returns the number of the saves that are accepted.
async fn race_to_save(client: &Client, routes: &[RouteDescriptor]) -> Result<usize> {
    let store = client.catalog_store();
    let version = store.version().await.map_err(failed)?;
    let saves = (0..RACERS).map(|_| store.save(version, TableId(1), routes));
    let ended = futures::future::join_all(saves).await;
    let (saved, refused): (Vec<_>, Vec<_>) = ended.into_iter().partition(|save| save.is_ok());
    let count = saved.len();
    for save in refused {
        expect_refusal("a racing save", save, Reason::CatalogVersionMismatch)?;
    }
    let next = store.version().await.map_err(failed)?;
    expect("version after the race", next.get(), version.get() + 1)?;
    Ok(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_begins_with_known_routes() -> Result<()> {
    let cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    race_for_the_first_catalog(&cluster).await?;
    let client = connect(&cluster).await?;
    let store = client.catalog_store();
    let first = store.snapshot().await.map_err(failed)?;
    // A reserved table is no table for readers and writers.
    let unknown = client.table(TABLE).await;
    expect("found by name", matches!(unknown, Err(ClientError::TableNotFound(_))), true)?;
    cluster.run(&["scan", TABLE, "--count"]).await?.status(3)?;
    let mut routes = first.snapshot.routes.clone();
    expect("a gap", race_to_save(&client, &routes[..1]).await?, 1)?;
    expect_refusal("open with a gap", store.open(TABLE).await, Reason::InvalidArgument)?;
    // The first id was used, and the route exists no more.
    let version = store.version().await.map_err(failed)?;
    let used = store.save(version, TableId(1), &routes).await;
    expect_refusal("save of a route id that was used", used, Reason::InvalidArgument)?;
    routes[1].route_id = RegionId(0);
    expect("the whole table", race_to_save(&client, &routes).await?, 1)?;
    let listed = cluster.run(&["table", "list", "--output", "json"]).await?.ok()?.json()?;
    expect("listed", listed[0]["state"].as_str(), Some("reserved"))?;
    let opened = cluster.run(&["table", "open", TABLE, "--output", "json"]).await?.ok()?.json()?;
    expect("opened", opened["state"].as_str(), Some("active"))?;
    let again = store.save(CatalogVersion(3), TableId(1), &routes).await;
    expect_refusal("save of live routes", again, Reason::RouteLive)?;

    let writer = client.writer(TABLE, WriterOptions::default()).await.map_err(failed)?;
    let rows: Vec<i64> = vec![-5, 0, 5, i64::MAX];
    let names = arrow::array::StringArray::from(vec!["row"; rows.len()]);
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(arrow::array::Int64Array::from(rows)), Arc::new(names)];
    let batch = arrow::array::RecordBatch::try_new(writer.table().schema.arrow(), columns);
    writer.put_rows(batch.map_err(failed)?).await.map_err(failed)?;
    expect("rows", cluster.count(TABLE).await?, 4)?;
    let regions = cluster.run(&["route", "list", "--table", TABLE, "--output", "json"]).await?;
    expect("routes", regions.ok()?.json()?.as_array().map(Vec::len), Some(2))?;
    follow(&client, first).await?;
    cluster.finish().await
}

/// Follows the changes since a snapshot in pages, and compares the result with the newest snapshot.
async fn follow(client: &Client, first: tidewater_client::admin::StoredRoutes) -> Result<()> {
    let store = client.catalog_store();
    let engine = RouteEngine::new();
    engine.apply_snapshot(first.snapshot).map_err(failed)?;
    let newest = store.snapshot().await.map_err(failed)?;
    let mut cursor = first.cursor;
    while cursor.version != newest.cursor.version {
        let changes = store.changes_since(cursor, 1).await.map_err(failed)?;
        let RouteChanges::Deltas(deltas, next) = changes else {
            return Err(failed("the changes are not kept"));
        };
        expect("changes of a page", deltas.len(), 1)?;
        for delta in deltas {
            engine.apply_delta(delta).map_err(failed)?;
        }
        cursor = next;
    }
    let known = engine.apply_snapshot(newest.snapshot).map_err(failed)?;
    expect("the engine differs from the snapshot", known, false)?;
    let mut lost = cursor;
    lost.incarnation = tidewater_common::ids::Incarnation(cursor.incarnation.get() + 1);
    let restored = store.changes_since(lost, 1).await.map_err(failed)?;
    expect("a snapshot", matches!(restored, RouteChanges::Snapshot(_)), true)
}
