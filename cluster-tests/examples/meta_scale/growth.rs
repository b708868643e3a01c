//! Creation of tables at growing sizes, saves, splits and merges of routes, the start of a meta node, and the way of a
//! change to all watchers.

use std::time::Duration;

use futures::stream::{self, TryStreamExt};
use tidewater_client::catalog::RouteEngine;
use tidewater_client::{Client, ClientOptions, NewTable};
use tidewater_cluster_tests::stub::ReachTimes;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_common::ids::GroupId;
use tidewater_common::keys::{KeyRange, global_key};
use tokio::time::Instant;

use crate::options::Options;
use crate::report::Report;
use crate::scene::Scene;

/// Tables that are created at the same time to reach a size.
const CREATING: usize = 16;

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

async fn connect(scene: &Scene) -> Result<Client> {
    let connected = ClientOptions { meta: scene.metas.clone(), ..ClientOptions::default() };
    Client::connect(connected).await.map_err(failed)
}

/// Measures at each size.
pub(crate) async fn measure(
    scene: &mut Scene,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let mut tables = 0;
    for size in &options.tables {
        let scenario = format!("{size} tables");
        let begun = Instant::now();
        let calls = &scene.calls;
        stream::iter((tables..*size).map(Ok))
            .try_for_each_concurrent(CREATING, |number| async move {
                calls.create_table(&format!("t{number}"), options.routes).await
            })
            .await?;
        let filled = size.saturating_sub(tables);
        tables = *size;
        let rate = filled as f64 / begun.elapsed().as_secs_f64();
        report.add(&scenario, "creations, 16 at a time", rate, "tables/s");
        scene.settle(options.limit).await?;

        let mut times = Vec::new();
        for number in 0..options.samples {
            let begun = Instant::now();
            scene.calls.create_table(&format!("s{size}_{number}"), options.routes).await?;
            times.push(begun.elapsed());
        }
        add_times(report, &scenario, "creation, one at a time", &ReachTimes::new(times));
        let fetched = measure_client(scene, options, &format!("c{size}")).await?;
        report.add_time(&scenario, "creation by the client library", fetched);
        measure_change(scene, options, &scenario, report).await?;
        measure_routes(scene, options, &scenario, report).await?;
        measure_saves(scene, options, &scenario, report).await?;
        measure_start(scene, &scenario, report).await?;
        scene.record_processes(&scenario, report).await?;
    }
    Ok(())
}

fn add_times(report: &mut Report, scenario: &str, name: &str, times: &ReachTimes) {
    report.add_time(scenario, &format!("{name}: median"), times.median());
    report.add_time(scenario, &format!("{name}: longest"), times.last());
}

/// Time of a creation by the client library, which fetches the catalog afterwards.
async fn measure_client(scene: &Scene, options: &Options, name: &str) -> Result<Duration> {
    let client = connect(scene).await?;
    let mut times = Vec::new();
    for number in 0..options.samples.div_ceil(3) {
        let begun = Instant::now();
        client.create_table(new_table(&format!("{name}_{number}"))).await.map_err(failed)?;
        times.push(begun.elapsed());
    }
    Ok(ReachTimes::new(times).median())
}

fn new_table(name: &str) -> NewTable {
    NewTable {
        name: name.to_owned(),
        columns: vec![tidewater_client::admin::NewColumn::new("id", "int64", false)],
        primary_key: vec!["id".to_owned()],
        time_column: None,
        write_mode: tidewater_common::schema::WriteMode::Upsert,
        hash_columns: Vec::new(),
        vnode_count: 0,
        regions: 1,
        ttl_ms: None,
        compaction_window: None,
        holds_events: false,
        refresh: None,
    }
}

/// Time from the beginning of a table's alteration until it has ended, and until all watchers have it.
async fn measure_change(
    scene: &Scene,
    options: &Options,
    scenario: &str,
    report: &mut Report,
) -> Result<()> {
    let mut commands = Vec::new();
    let mut medians = Vec::new();
    let mut lasts = Vec::new();
    for number in 0..options.samples.div_ceil(3) {
        let column = format!("c{}_{number}", scenario.split(' ').next().unwrap_or_default());
        let begun = Instant::now();
        scene.calls.add_column("t1", &column).await?;
        commands.push(begun.elapsed());
        let revision = scene.calls.revision().await?;
        let reached = scene.watchers.times_to(revision, begun, options.limit).await?;
        medians.push(reached.median());
        lasts.push(reached.last());
    }
    report.add_time(scenario, "alter: command", ReachTimes::new(commands).median());
    report.add_time(scenario, "alter: at half of the watchers", ReachTimes::new(medians).median());
    report.add_time(scenario, "alter: at all watchers", ReachTimes::new(lasts).median());
    Ok(())
}

/// Times of a client's first read of the catalog, and of a split and a merge of a route.
async fn measure_routes(
    scene: &Scene,
    options: &Options,
    scenario: &str,
    report: &mut Report,
) -> Result<()> {
    let mut times: [Vec<Duration>; 4] = Default::default();
    for sample in 0..options.samples.div_ceil(3) {
        let begun = Instant::now();
        let client = connect(scene).await?;
        times[0].push(begun.elapsed());
        let catalog = client.catalog();
        if sample == 0 {
            report.add(scenario, "routes", catalog.routes().count() as f64, "routes");
        }
        let table = client.table("t1").await.map_err(failed)?.id;
        let route = catalog.routes().find(|route| route.table == table);
        let route = route.ok_or_else(|| HarnessError::violated("table t1 has no route"))?;
        let key = [&route.range.start[..], &[0]].concat();
        let begun = Instant::now();
        let children = client.split_route(route.region, key.into()).await.map_err(failed)?;
        times[1].push(begun.elapsed());
        let revision = scene.calls.revision().await?;
        let reached = scene.watchers.times_to(revision, begun, options.limit).await?;
        times[2].push(reached.last());
        let [first, second] = children[..] else {
            return Err(HarnessError::violated(format!("a split into {children:?}")));
        };
        let begun = Instant::now();
        client.merge_routes(first, second).await.map_err(failed)?;
        times[3].push(begun.elapsed());
    }
    let names = [
        "client: connect and read the catalog",
        "split: command",
        "split: at all watchers",
        "merge: command",
    ];
    for (name, times) in names.into_iter().zip(times) {
        report.add_time(scenario, name, ReachTimes::new(times).median());
    }
    Ok(())
}

/// Times of saves of the routes of a reserved table, and of the changes since a version that is kept.
async fn measure_saves(
    scene: &Scene,
    options: &Options,
    scenario: &str,
    report: &mut Report,
) -> Result<()> {
    let client = connect(scene).await?;
    let store = client.catalog_store();
    let reserved = NewTable { regions: 0, ..new_table("reserved") };
    let table = store.reserve(reserved).await.map_err(failed)?;
    let before = store.snapshot().await.map_err(failed)?.cursor;
    for count in [10u32, 1_000] {
        let mut times = Vec::new();
        for _ in 0..options.samples.div_ceil(3) {
            let engine = RouteEngine::with_default_route(GroupId(1));
            let engine = engine.map_err(failed)?;
            for number in 1..count {
                let start = global_key(table, &number.to_be_bytes());
                let range = KeyRange { start, end: None };
                let updated = engine.update_route(range, GroupId(1));
                updated.map_err(failed)?;
            }
            let routes = engine.routes_of_table(table);
            let routes = routes.map_err(failed)?;
            let version = store.version().await.map_err(failed)?;
            let begun = Instant::now();
            store.save(version, table, &routes).await.map_err(failed)?;
            times.push(begun.elapsed());
        }
        let name = format!("save of {count} routes");
        report.add_time(scenario, &name, ReachTimes::new(times).median());
    }
    let begun = Instant::now();
    store.changes_since(before, usize::MAX).await.map_err(failed)?;
    report.add_time(scenario, "changes since these saves", begun.elapsed());
    client.drop_table("reserved").await.map(drop).map_err(failed)
}

/// Time from the start of a follower's process until it serves.
async fn measure_start(scene: &mut Scene, scenario: &str, report: &mut Report) -> Result<()> {
    let leader = scene.leader().await?;
    let follower = (leader + 1) % scene.cluster.meta.len();
    let node = &mut scene.cluster.meta[follower];
    node.kill().await?;
    let begun = Instant::now();
    node.start().await?;
    report.add_time(scenario, "start of a meta node", begun.elapsed());
    Ok(())
}
