//! Durable hooks receive every version of every manifest, across kills, garbage collection and drops.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::garbage::data_files;
use crate::hook_calls::{add, live_by_calls, paths, received, version_of};
use crate::support::{SETTLED_WITHIN, live_files, wait_until_replicas_agree};

fn violated<T>(what: String) -> Result<T> {
    Err(HarnessError::violated(what))
}

/// Returns the current manifest version of a region.
async fn current_version(cluster: &Cluster, region: u64) -> Result<u64> {
    let output =
        cluster.run(&["region", "manifest", &region.to_string(), "--output", "json"]).await?;
    Ok(output.ok()?.json()?["state"]["version"].as_u64().unwrap_or(0))
}

/// Writes and compacts rows; returns the files that the compaction has replaced.
async fn replaced_files(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let csv = cluster.directory().join("rows.csv");
    for note in ["first", "second"] {
        let rows: String = (0..100).map(|serial| format!("1,{serial},{note}\n")).collect();
        std::fs::write(&csv, format!("writer,serial,note\n{rows}"))
            .map_err(HarnessError::io("write rows"))?;
        cluster.run(&["load", LOG_TABLE, &csv.to_string_lossy()]).await?.ok()?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    let before: BTreeSet<String> = live_files(cluster, LOG_TABLE).await?.into_iter().collect();
    cluster.run(&["region", "compact", "--table", LOG_TABLE]).await?.ok()?;
    let live: BTreeSet<String> = live_files(cluster, LOG_TABLE).await?.into_iter().collect();
    let replaced: BTreeSet<String> = before.difference(&live).cloned().collect();
    if replaced.len() < 2 {
        return violated(format!("the compaction replaced {replaced:?}"));
    }
    Ok(replaced)
}

async fn collect_garbage(cluster: &Cluster) -> Result<Value> {
    cluster.run(&["gc", "--output", "json"]).await?.ok()?.json()
}

/// Collects garbage until all of these files are deleted.
async fn wait_until_deleted(cluster: &Cluster, files: &BTreeSet<String>) -> Result<()> {
    wait::until("garbage collection deletes the replaced files", SETTLED_WITHIN, || async {
        let report = collect_garbage(cluster).await.map_err(|error| error.to_string())?;
        let stored = data_files(cluster).map_err(|error| error.to_string())?;
        if files.is_disjoint(&stored) { Ok(()) } else { Err(report.to_string()) }
    })
    .await
}

/// Collects garbage several times; fails if one of these files is deleted.
async fn expect_kept(cluster: &Cluster, files: &BTreeSet<String>) -> Result<()> {
    let mut report = Value::Null;
    for _ in 0..4 {
        // Longer than the grace period.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        report = collect_garbage(cluster).await?;
        if !files.is_subset(&data_files(cluster)?) {
            return violated(format!("files that a hook awaits were deleted: {report}"));
        }
    }
    if report["kept_because"]["awaited"].as_u64() < Some(files.len() as u64) {
        return violated(format!("the report does not count awaited files: {report}"));
    }
    let metrics = Metrics::fetch(cluster.data[0].spec.listen).await?;
    let awaited = metrics.sum("tidewater_gc_awaited_objects");
    if awaited < files.len() as u64 {
        return violated(format!("{awaited} awaited objects are counted"));
    }
    Ok(())
}

async fn pause(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.run(&["hook", "pause", name]).await?.ok()?;
    wait::until("the hook is paused", SETTLED_WITHIN, || async {
        let hook = find_hook(cluster, name).await.map_err(|error| error.to_string())?;
        let hook = hook.ok_or("the hook is not listed")?;
        if hook["state"] == "paused" { Ok(()) } else { Err(hook.to_string()) }
    })
    .await
}

async fn wait_for_all_versions(cluster: &Cluster, path: &Path, region: u64) -> Result<Vec<Value>> {
    wait::until("the hook has received every version", SETTLED_WITHIN, || async {
        let last = current_version(cluster, region).await.map_err(|error| error.to_string())?;
        let calls = received(path, region).map_err(|error| error.to_string())?;
        let reached = calls.last().map_or(0, version_of);
        if reached >= last && last > 0 { Ok(calls) } else { Err(format!("{reached} of {last}")) }
    })
    .await
}

async fn find_hook(cluster: &Cluster, name: &str) -> Result<Option<Value>> {
    let listed = cluster.run(&["hook", "list", "--output", "json"]).await?.ok()?.json()?;
    Ok(listed.as_array().into_iter().flatten().find(|hook| hook["name"] == name).cloned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_hook_receives_every_version_across_owner_kills() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let path = add(&cluster, "audit", &[]).await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let mut ever_live: BTreeSet<String> = BTreeSet::new();
    for round in 0..10 {
        for _ in 0..2 {
            load.progress(10).await?;
            // A failed flush is as good a fault as a kill.
            cluster.flush(LOG_TABLE).await?;
            ever_live.extend(live_files(&cluster, LOG_TABLE).await?);
        }
        let owner = cluster.owner(LOG_TABLE).await?;
        if round % 2 == 0 {
            cluster.run(&["region", "compact", &region.to_string()]).await?;
            ever_live.extend(live_files(&cluster, LOG_TABLE).await?);
            cluster.data[owner].kill().await?;
        } else {
            // Kill the owner during a flush and a compaction, whose results are verified at the end.
            let id = region.to_string();
            let compact = ["region", "compact", id.as_str()];
            let kill = async {
                tokio::time::sleep(Duration::from_millis(20 * round)).await;
                cluster.data[owner].signal(Signal::Kill).await
            };
            let (_, _, killed) =
                tokio::join!(cluster.flush(LOG_TABLE), cluster.run(&compact), kill);
            killed?;
            cluster.data[owner].kill().await?;
        }
        load.progress(10).await?;
        cluster.data[owner].start().await?;
        cluster.wait_until_healthy().await?;
    }
    let attempts = load.stop().await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.flush(LOG_TABLE).await?.ok()?;
    ever_live.extend(live_files(&cluster, LOG_TABLE).await?);
    let calls = wait_for_all_versions(&cluster, &path, region).await?;
    // The hook is older than the table, so the first version is not missing either.
    if calls.first().map_or(0, version_of) != 1 {
        return violated(format!("the first call is {:?}", calls.first()));
    }
    if let Some(restart) = calls.iter().find(|line| line["event"] != "manifest_updated") {
        return violated(format!("versions were lost: {restart}"));
    }
    let named: BTreeSet<String> = calls.iter().flat_map(paths).collect();
    if !ever_live.is_subset(&named) {
        let missing: Vec<_> = ever_live.difference(&named).collect();
        return violated(format!("no call names the files {missing:?}"));
    }
    wait::until("the calls match the live files", SETTLED_WITHIN, || async {
        let calls = received(&path, region).map_err(|error| error.to_string())?;
        let live = live_files(&cluster, LOG_TABLE).await.map_err(|error| error.to_string())?;
        let by_calls = live_by_calls(&calls);
        let live: BTreeSet<_> = live.into_iter().collect();
        if by_calls == live { Ok(()) } else { Err(format!("{by_calls:?} called, {live:?} live")) }
    })
    .await?;
    wait::until("the hook has no lag", SETTLED_WITHIN, || async {
        let hook = find_hook(&cluster, "audit").await.map_err(|error| error.to_string())?;
        let hook = hook.ok_or("the hook is not listed")?;
        let current = hook["lag"] == 0 && hook["state"] == "active" && hook["durable"] == true;
        if current { Ok(()) } else { Err(hook.to_string()) }
    })
    .await?;
    wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await
}

/// A cluster with one data node and a table whose durable hook `audit` was paused after it had received
/// every version. Garbage collection deletes after a second.
struct PausedHook {
    cluster: Cluster,
    /// File of the hook.
    path: PathBuf,
    region: u64,
}

impl PausedHook {
    async fn start(env: &[(&str, &str)]) -> Result<Self> {
        let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_GC_GRACE", "1s");
        let plan = env.iter().fold(plan, |plan, (name, value)| plan.env(name, value));
        let cluster = plan.start().await?;
        cluster.create_log_table().await?;
        let region = cluster.region(LOG_TABLE).await?.region_id;
        // The manifest of a region starts with its first flush.
        cluster.flush(LOG_TABLE).await?.ok()?;
        let path = add(&cluster, "audit", &["--from", "1"]).await?;
        wait_for_all_versions(&cluster, &path, region).await?;
        pause(&cluster, "audit").await?;
        Ok(Self { cluster, path, region })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_collection_keeps_versions_awaited_by_durable_hooks() -> Result<()> {
    let PausedHook { cluster, path, region } = PausedHook::start(&[]).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    // Flush beyond the next checkpoint, which covers versions that the hook has not received.
    let before = current_version(&cluster, region).await?;
    while current_version(&cluster, region).await? < before + 20 {
        load.progress(5).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    wait::until("garbage collection reports awaited versions", SETTLED_WITHIN, || async {
        let output =
            cluster.run(&["gc", "--output", "json"]).await.and_then(|output| output.ok()?.json());
        let output = output.map_err(|error| error.to_string())?;
        let text = output.to_string();
        if text.contains("awaited") { Ok(()) } else { Err(text) }
    })
    .await?;
    wait::until("the lag is visible", SETTLED_WITHIN, || async {
        let hook = find_hook(&cluster, "audit").await.map_err(|error| error.to_string())?;
        let hook = hook.ok_or("the hook is not listed")?;
        if hook["lag"].as_u64() >= Some(10) { Ok(()) } else { Err(hook.to_string()) }
    })
    .await?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    let calls = wait_for_all_versions(&cluster, &path, region).await?;
    if calls.first().map_or(0, version_of) != 1 {
        return violated(format!("the first call is {:?}", calls.first()));
    }
    if let Some(restart) = calls.iter().find(|line| line["event"] == "bootstrap") {
        return violated(format!("versions awaited by the hook were deleted: {restart}"));
    }
    load.stop().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_hook_respects_start_and_ends_with_its_table() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    load.progress(5).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let config = format!(r#"{{"path":"{}"}}"#, cluster.hook_directory().join("x").display());
    let base = ["hook", "add", "x", "--kind", "jsonl", "--config", &config];
    let with = |more: &'static [&'static str]| [base.as_slice(), more].concat();
    cluster
        .run(&with(&["--durable", "--from", "100000"]))
        .await?
        .status(3)?
        .expect_stderr(&["100000"])?;
    cluster.run(&with(&["--from", "1"])).await?.status(2)?;
    if find_hook(&cluster, "x").await?.is_some() {
        return violated("a rejected hook is listed".to_owned());
    }
    let all = add(&cluster, "all", &["--from", "start", "--table", LOG_TABLE]).await?;
    let now = add(&cluster, "now", &[]).await?;
    load.progress(5).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let calls_from_start = wait_for_all_versions(&cluster, &all, region).await?;
    let first = calls_from_start.first().cloned().unwrap_or_default();
    if first["event"] != "bootstrap" || paths(&first).next().is_none() {
        return violated(format!("the first call is {first}"));
    }
    let calls_from_now = wait_for_all_versions(&cluster, &now, region).await?;
    if calls_from_now.iter().any(|line| line["event"] == "bootstrap" || version_of(line) < 4) {
        return violated(format!("{calls_from_now:?}"));
    }
    load.stop().await?;
    cluster.run(&["table", "drop", LOG_TABLE]).await?.ok()?;
    let removed = |line: &Value| {
        let actions = line["actions"].as_array().cloned().unwrap_or_default();
        actions.iter().any(|action| action.get("remove").is_some())
    };
    for path in [&all, &now] {
        wait::until("the hook receives the removal", SETTLED_WITHIN, || async {
            let calls = received(path, region).map_err(|error| error.to_string())?;
            if calls.last().is_some_and(removed) {
                Ok(())
            } else {
                Err(format!("{:?}", calls.last()))
            }
        })
        .await?;
    }
    // The hook of the dropped table is removed, the other one stays.
    wait::until("the hook is removed", SETTLED_WITHIN, || async {
        let all = find_hook(&cluster, "all").await.map_err(|error| error.to_string())?;
        all.map_or(Ok(()), |hook| Err(hook.to_string()))
    })
    .await?;
    if find_hook(&cluster, "now").await?.is_none() {
        return violated("the hook for all tables was removed as well".to_owned());
    }
    cluster.run(&["hook", "remove", "now"]).await?.ok()?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lagging_durable_hook_restarts_with_the_live_files() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_GC_GRACE", "1s");
    // A compaction between the last call and the listing of live files would break the comparison.
    let plan = plan.env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.env("TIDEWATER_HOOK_RETENTION_VERSIONS", "5").start().await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let path = add(&cluster, "audit", &["--from", "1"]).await?;
    wait_for_all_versions(&cluster, &path, region).await?;
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let before = current_version(&cluster, region).await?;
    while current_version(&cluster, region).await? < before + 20 {
        load.progress(5).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    load.stop().await?;
    wait::until("awaited versions are deleted", SETTLED_WITHIN, || async {
        let output =
            cluster.run(&["gc", "--output", "json"]).await.and_then(|output| output.ok()?.json());
        let output = output.map_err(|error| error.to_string())?;
        let covered = output["objects"].as_array().into_iter().flatten();
        let covered = covered.filter(|object| object["why"] == "covered").count();
        if covered > 0 { Ok(()) } else { Err(output.to_string()) }
    })
    .await?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    let calls = wait_for_all_versions(&cluster, &path, region).await?;
    if !calls.iter().any(|line| line["event"] == "bootstrap" && version_of(line) > before) {
        return violated("the hook did not restart with a snapshot".to_owned());
    }
    let live: BTreeSet<String> = live_files(&cluster, LOG_TABLE).await?.into_iter().collect();
    let by_calls = live_by_calls(&calls);
    if by_calls != live {
        return violated(format!("{by_calls:?} called, {live:?} live"));
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_files_stay_until_durable_hook_receives_removal() -> Result<()> {
    let PausedHook { cluster, path, region } = PausedHook::start(&[]).await?;
    let replaced = replaced_files(&cluster).await?;
    expect_kept(&cluster, &replaced).await?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    let calls = wait_for_all_versions(&cluster, &path, region).await?;
    let named: BTreeSet<String> = calls.iter().flat_map(paths).collect();
    if !replaced.is_subset(&named) {
        return violated(format!("no call names all of {replaced:?}"));
    }
    wait_until_deleted(&cluster, &replaced).await?;

    // A removed hook awaits nothing.
    pause(&cluster, "audit").await?;
    let replaced = replaced_files(&cluster).await?;
    expect_kept(&cluster, &replaced).await?;
    cluster.run(&["hook", "remove", "audit"]).await?.ok()?;
    wait_until_deleted(&cluster, &replaced).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hook_paused_beyond_its_limit_keeps_no_files() -> Result<()> {
    let env = [("TIDEWATER_HOOK_RETENTION", "15s")];
    let PausedHook { cluster, path, region } = PausedHook::start(&env).await?;
    let replaced = replaced_files(&cluster).await?;
    wait_until_deleted(&cluster, &replaced).await?;
    let hook = find_hook(&cluster, "audit").await?.unwrap_or_default();
    if hook["state"] != "paused" || hook["lag"].as_u64() < Some(3) {
        return violated(format!("the hook does not show its lag: {hook}"));
    }
    // It restarts with a snapshot, and no call names a deleted file as added.
    let before = received(&path, region)?.len();
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    let calls = wait_for_all_versions(&cluster, &path, region).await?;
    let calls = calls.get(before..).unwrap_or_default();
    if calls.first().is_none_or(|line| line["event"] != "bootstrap") {
        return violated(format!("the hook did not restart with a snapshot: {calls:?}"));
    }
    let named: BTreeSet<String> = calls.iter().flat_map(paths).collect();
    if !named.is_disjoint(&replaced) {
        return violated(format!("calls name deleted files: {named:?}"));
    }
    cluster.finish().await
}
