//! Many refreshable tables on an interval: a source that fails stops no other refresh.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tidewater_client::{Client, NewTable, ScanSpec};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::{
    ProblemKind, Reason, RefreshDefinition, RefreshInfo, RefreshOutcome, RefreshRecord, RefreshRun,
    RefreshSettings,
};
use tokio::net::TcpListener;

use super::versions::connect;
use crate::reserved::definition;
use crate::support::{setting, wait_for_kind, wait_for_level, wait_for_problem};

/// Tables, without a count in the environment.
const TABLES: usize = 100;
/// Table whose source does not exist.
const MISSING: usize = 13;
/// Table whose source accepts connections and never answers.
const SILENT: usize = 37;
const INTERVAL_MS: u64 = 20_000;
const ROWS: u64 = 10;
/// Tables that are created at the same time.
const CREATING: usize = 8;
/// Time in which all tables have a version: some intervals, on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

fn name(number: usize) -> String {
    format!("t{number}")
}

/// Writes a version of a table's source: each has another number of rows.
fn write(directory: &Path, number: usize, version: u64) -> Result<()> {
    let directory = directory.join(name(number));
    fs::create_dir_all(&directory).map_err(HarnessError::io("create a directory"))?;
    let rows: String = (0..ROWS + version).map(|id| format!("{id},row {id}\n")).collect();
    // The rename replaces the object as a whole.
    let new = directory.join(".new");
    fs::write(&new, format!("id,name\n{rows}")).map_err(HarnessError::io("write a source"))?;
    fs::rename(new, directory.join("rows.csv")).map_err(HarnessError::io("write a source"))
}

fn table(directory: &Path, number: usize, silent_port: u16) -> NewTable {
    let url = format!("file://{}", directory.join(name(number)).display());
    let (kind, config) = match number {
        SILENT => {
            let server = json!({"host": "127.0.0.1", "port": silent_port, "database": "d"});
            let mut config = server.as_object().cloned().unwrap_or_default();
            config.insert("user".to_owned(), json!("u"));
            config.insert("connect_timeout_s".to_owned(), json!(1));
            config.insert("query".to_owned(), json!("select 1 as id, 'x' as name"));
            ("postgres", json!(config))
        }
        _ => ("csv", json!({ "url": url })),
    };
    let settings = RefreshSettings { interval_ms: INTERVAL_MS, ..RefreshSettings::default() };
    NewTable {
        regions: 1,
        refresh: Some(RefreshDefinition {
            source_kind: kind.to_owned(),
            source_config: config.to_string(),
            settings: Some(settings),
        }),
        ..definition(&name(number))
    }
}

fn is_faulty(name: &str) -> bool {
    [MISSING, SILENT].map(self::name).iter().any(|faulty| faulty == name)
}

async fn infos(client: &Client) -> std::result::Result<Vec<RefreshInfo>, String> {
    client.refreshes(None, false).await.map_err(|error| error.to_string())
}

/// Waits until the last refresh of each table, but those with faulty sources, has read a version.
async fn wait_for_version(client: &Client, version: u64) -> Result<()> {
    wait::until("all tables are refreshed", WITHIN, || async {
        let is_old = |info: &&RefreshInfo| {
            let last = info.record.as_ref().and_then(|record| record.history.first());
            last.is_none_or(|run| run.source_rows != ROWS + version)
        };
        let infos = infos(client).await?;
        let others = || infos.iter().filter(|info| !is_faulty(&info.table));
        match others().filter(is_old).count() {
            0 => Ok(()),
            old => {
                Err(format!("{old} of {} are not: {:?}", others().count(), others().find(is_old)))
            }
        }
    })
    .await
}

async fn expect_rows(client: &Client, tables: usize, version: u64) -> Result<()> {
    for number in (0..tables).filter(|number| !is_faulty(&name(*number))) {
        let found = client.count(ScanSpec::all(name(number))).await.map_err(failed)?;
        if found != ROWS + version {
            let text = format!("{} has {found} rows in version {version}", name(number));
            return Err(HarnessError::violated(text));
        }
    }
    Ok(())
}

/// Checks the records, and prints the times of the refreshes.
async fn check_records(client: &Client) -> Result<()> {
    let mut times = Vec::new();
    let found = infos(client).await.map_err(HarnessError::violated)?;
    let records: BTreeMap<&str, &RefreshRecord> =
        found.iter().filter_map(|info| Some((&*info.table, info.record.as_ref()?))).collect();
    for (table, record) in &records {
        // A source that was replaced while it was read is read again.
        let has_failed = |run: &&RefreshRun| {
            let changed = run.error_reason == i32::from(Reason::SourceChanged);
            run.outcome() == RefreshOutcome::Failed && !changed
        };
        let failures = record.history.iter().filter(has_failed).count();
        if is_faulty(table) != (failures > 0) || is_faulty(table) != (record.failures > 0) {
            let text = format!("{failures} refreshes of {table} have failed: {record:?}");
            return Err(HarnessError::violated(text));
        }
        let published =
            record.history.iter().filter(|run| run.outcome() == RefreshOutcome::Published);
        times.extend(published.map(|run| run.ended_ms.saturating_sub(run.begun_ms)));
    }
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied();
    let median = Duration::from_millis(at(50).unwrap_or_default());
    println!(
        "{} refreshes of {} tables: median {median:?}, 95 % within {} ms, longest {} ms",
        times.len(),
        records.len(),
        at(95).unwrap_or_default(),
        at(100).unwrap_or_default()
    );
    Ok(())
}

async fn expect_problems(cluster: &Cluster) -> Result<()> {
    for number in [MISSING, SILENT] {
        let table = name(number);
        wait_for_kind(cluster, "refresh_failing", |problem| problem["table"] == table).await?;
    }
    let problems = cluster.run(&["cluster", "status", "--output", "json"]).await?.json()?;
    let kinds = problems["problem_details"].as_array().into_iter().flatten();
    let expected = tidewater_common::problem_kind::name(ProblemKind::RefreshFailing);
    let others: Vec<_> = kinds.filter(|problem| problem["kind"] != expected).collect();
    if others.is_empty() { Ok(()) } else { Err(HarnessError::violated(format!("{others:?}"))) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_sources_stop_no_other_refresh() -> Result<()> {
    let tables = setting("TIDEWATER_REFRESHED_TABLES", TABLES).max(SILENT + 1);
    let silent = TcpListener::bind("127.0.0.1:0").await.map_err(HarnessError::io("listen"))?;
    let port = silent.local_addr().map_err(HarnessError::io("listen"))?.port();
    let cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    let directory = cluster.source_directory();
    for number in (0..tables).filter(|number| *number != MISSING) {
        write(&directory, number, 0)?;
    }
    let client = connect(&cluster).await?;
    stream::iter(0..tables)
        .map(|number| client.create_table(table(&directory, number, port)))
        .buffer_unordered(CREATING)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(failed)?;
    for version in 0..2 {
        if version > 0 {
            for number in (0..tables).filter(|number| *number != MISSING) {
                write(&directory, number, version)?;
            }
        }
        wait_for_version(&client, version).await?;
        expect_rows(&client, tables, version).await?;
    }
    expect_problems(&cluster).await?;
    check_records(&client).await?;
    for number in [MISSING, SILENT] {
        cluster.run(&["refresh", "pause", &name(number)]).await?.ok()?;
    }
    wait_for_problem(&cluster, "the refresh of table", false).await?;
    cluster.finish().await
}
