//! Durable hooks: every version of every manifest, through kills, cleaning and drops.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, Plan};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, live_files, replicas_agree};

fn violated<T>(what: String) -> Result<T> {
    Err(HarnessError::violated(what))
}

/// Adds a durable hook that writes lines; gives the file.
async fn add(cluster: &Cluster, name: &str, more: &[&str]) -> Result<PathBuf> {
    let path = cluster.folder().join(format!("{name}.jsonl"));
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let args = ["hook", "add", name, "--kind", "jsonl", "--config", &config, "--durable"];
    cluster.run(&[args.as_slice(), more].concat()).await?.ok()?;
    Ok(path)
}

/// The whole lines of a hook's file; none while there is no file.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What was told of one region for the first time, in order: H4. An error when a version is missing
/// or came too early.
fn told(path: &Path, region: u64) -> Result<Vec<Value>> {
    let mut firsts: Vec<Value> = Vec::new();
    let mut known = None;
    for line in lines(path).into_iter().filter(|line| line["region_id"] == region) {
        let version = line["manifest_version"].as_u64().unwrap_or(0);
        let begins = line["event"] == "bootstrap";
        match known {
            Some(known) if version <= known => continue,
            Some(known) if version > known + 1 && !begins => {
                return violated(format!("region {region}: {version} was told after {known}"));
            }
            _ => {}
        }
        known = Some(version);
        firsts.push(line);
    }
    Ok(firsts)
}

fn version_of(line: &Value) -> u64 {
    line["manifest_version"].as_u64().unwrap_or(0)
}

fn paths(line: &Value) -> impl Iterator<Item = String> {
    let files = line["files"].as_array().cloned().unwrap_or_default();
    files.into_iter().filter_map(|file| file["path"].as_str().map(str::to_owned))
}

/// The files that are live by what was told.
fn live_by(told: &[Value]) -> BTreeSet<String> {
    let mut live: BTreeMap<String, String> = BTreeMap::new();
    for line in told {
        if line["event"] == "bootstrap" {
            live.clear();
        } else if line["manifest"] != "live" {
            continue;
        }
        for file in line["files"].as_array().into_iter().flatten() {
            let text = |field: &str| file[field].as_str().unwrap_or_default().to_owned();
            live.insert(text("file_id"), text("path"));
        }
        for action in line["actions"].as_array().into_iter().flatten() {
            for file in action["edit"]["remove"].as_array().into_iter().flatten() {
                live.remove(file["file_id"].as_str().unwrap_or_default());
            }
        }
    }
    live.into_values().collect()
}

/// The version of a region's manifest.
async fn tail(cluster: &Cluster, region: u64) -> Result<u64> {
    let said =
        cluster.run(&["region", "manifest", &region.to_string(), "--output", "json"]).await?;
    Ok(said.ok()?.json()?["state"]["version"].as_u64().unwrap_or(0))
}

async fn told_all(cluster: &Cluster, path: &Path, region: u64) -> Result<Vec<Value>> {
    wait::until("every version is told", SETTLED_WITHIN, || async {
        let tail = tail(cluster, region).await.map_err(|error| error.to_string())?;
        let told = told(path, region).map_err(|error| error.to_string())?;
        let reached = told.last().map_or(0, version_of);
        if reached >= tail && tail > 0 { Ok(told) } else { Err(format!("{reached} of {tail}")) }
    })
    .await
}

async fn shown(cluster: &Cluster, name: &str) -> Result<Option<Value>> {
    let listed = cluster.run(&["hook", "list", "--output", "json"]).await?.ok()?.json()?;
    Ok(listed.as_array().into_iter().flatten().find(|hook| hook["name"] == name).cloned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn see_every_version_though_owners_are_killed() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let path = add(&cluster, "audit", &[]).await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    let load = Workload::start(&cluster, Load::default()).await?;
    let mut ever_live: BTreeSet<String> = BTreeSet::new();
    for round in 0..10 {
        for _ in 0..2 {
            load.progress(10).await?;
            // One that fails is as good as a kill.
            cluster.flush(LOG_TABLE).await?;
            ever_live.extend(live_files(&cluster, LOG_TABLE).await?);
        }
        let owner = cluster.owner(LOG_TABLE).await?;
        if round % 2 == 0 {
            cluster.run(&["region", "compact", &region.to_string()]).await?;
            ever_live.extend(live_files(&cluster, LOG_TABLE).await?);
            cluster.data[owner].kill().await?;
        } else {
            // In the midst of a flush and a merge; what becomes of them is seen in the end.
            let id = region.to_string();
            let merge = ["region", "compact", id.as_str()];
            let kill = async {
                tokio::time::sleep(Duration::from_millis(20 * round)).await;
                cluster.data[owner].signal(Signal::Kill).await
            };
            let (_, _, killed) = tokio::join!(cluster.flush(LOG_TABLE), cluster.run(&merge), kill);
            killed?;
            cluster.data[owner].kill().await?;
        }
        load.progress(10).await?;
        cluster.data[owner].start().await?;
        cluster.healthy().await?;
    }
    let attempts = load.stop().await?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.flush(LOG_TABLE).await?.ok()?;
    ever_live.extend(live_files(&cluster, LOG_TABLE).await?);
    let told = told_all(&cluster, &path, region).await?;
    // The table is younger than the hook: nothing is missing at the beginning either.
    if told.first().map_or(0, version_of) != 1 {
        return violated(format!("it begins with {:?}", told.first()));
    }
    if let Some(begun) = told.iter().find(|line| line["event"] != "manifest_updated") {
        return violated(format!("versions were lost: {begun}"));
    }
    let named: BTreeSet<String> = told.iter().flat_map(paths).collect();
    if !ever_live.is_subset(&named) {
        let missing: Vec<_> = ever_live.difference(&named).collect();
        return violated(format!("never named: {missing:?}"));
    }
    wait::until("what was told is what is live", SETTLED_WITHIN, || async {
        let told = self::told(&path, region).map_err(|error| error.to_string())?;
        let live = live_files(&cluster, LOG_TABLE).await.map_err(|error| error.to_string())?;
        let (by_hook, live) = (live_by(&told), live.into_iter().collect::<BTreeSet<_>>());
        if by_hook == live { Ok(()) } else { Err(format!("{by_hook:?} told, {live:?} live")) }
    })
    .await?;
    wait::until("there is no lag", SETTLED_WITHIN, || async {
        let hook = shown(&cluster, "audit").await.map_err(|error| error.to_string())?;
        let hook = hook.ok_or("it is not listed")?;
        let well = hook["lag"] == 0 && hook["state"] == "active" && hook["durable"] == true;
        if well { Ok(()) } else { Err(hook.to_string()) }
    })
    .await?;
    replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_waited_for_when_manifests_are_cleaned() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 0).env("TIDEWATER_GC_GRACE", "1s");
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    // A region's manifest begins with its first flush.
    cluster.flush(LOG_TABLE).await?.ok()?;
    let path = add(&cluster, "audit", &["--from", "1"]).await?;
    told_all(&cluster, &path, region).await?;
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    wait::until("it is paused", SETTLED_WITHIN, || async {
        let hook = shown(&cluster, "audit").await.map_err(|error| error.to_string())?;
        let hook = hook.ok_or("it is not listed")?;
        if hook["state"] == "paused" { Ok(()) } else { Err(hook.to_string()) }
    })
    .await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    // Beyond the next checkpoint, which covers what the hook has still to be told.
    let before = tail(&cluster, region).await?;
    while tail(&cluster, region).await? < before + 20 {
        load.progress(5).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    wait::until("what is not awaited is cleaned", SETTLED_WITHIN, || async {
        let said =
            cluster.run(&["gc", "--output", "json"]).await.and_then(|said| said.ok()?.json());
        let said = said.map_err(|error| error.to_string())?;
        let text = said.to_string();
        if text.contains("awaited") { Ok(()) } else { Err(text) }
    })
    .await?;
    wait::until("its lag shows", SETTLED_WITHIN, || async {
        let hook = shown(&cluster, "audit").await.map_err(|error| error.to_string())?;
        let hook = hook.ok_or("it is not listed")?;
        if hook["lag"].as_u64() >= Some(10) { Ok(()) } else { Err(hook.to_string()) }
    })
    .await?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    let told = told_all(&cluster, &path, region).await?;
    if told.first().map_or(0, version_of) != 1 {
        return violated(format!("it begins with {:?}", told.first()));
    }
    if let Some(begun) = told.iter().find(|line| line["event"] == "bootstrap") {
        return violated(format!("what it had still to be told was cleaned: {begun}"));
    }
    load.stop().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begin_where_they_are_asked_to_and_end_with_their_regions() -> Result<()> {
    let cluster = Plan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    let load = Workload::start(&cluster, Load::default()).await?;
    load.progress(5).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let config = format!(r#"{{"path":"{}"}}"#, cluster.folder().join("x").display());
    let base = ["hook", "add", "x", "--kind", "jsonl", "--config", &config];
    let with = |more: &'static [&'static str]| [base.as_slice(), more].concat();
    cluster
        .run(&with(&["--durable", "--from", "100000"]))
        .await?
        .status(3)?
        .complains(&["100000"])?;
    cluster.run(&with(&["--from", "1"])).await?.status(2)?;
    if shown(&cluster, "x").await?.is_some() {
        return violated("a hook that was refused is listed".to_owned());
    }
    let all = add(&cluster, "all", &["--from", "start", "--table", LOG_TABLE]).await?;
    let now = add(&cluster, "now", &[]).await?;
    load.progress(5).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let told_all_of = told_all(&cluster, &all, region).await?;
    let first = told_all_of.first().cloned().unwrap_or_default();
    if first["event"] != "bootstrap" || paths(&first).next().is_none() {
        return violated(format!("it begins with {first}"));
    }
    let told_now = told_all(&cluster, &now, region).await?;
    if told_now.iter().any(|line| line["event"] == "bootstrap" || version_of(line) < 4) {
        return violated(format!("{told_now:?}"));
    }
    load.stop().await?;
    cluster.run(&["table", "drop", LOG_TABLE]).await?.ok()?;
    let removed = |line: &Value| {
        let actions = line["actions"].as_array().cloned().unwrap_or_default();
        actions.iter().any(|action| action.get("remove").is_some())
    };
    for path in [&all, &now] {
        wait::until("the removal is told", SETTLED_WITHIN, || async {
            let told = told(path, region).map_err(|error| error.to_string())?;
            if told.last().is_some_and(removed) {
                Ok(())
            } else {
                Err(format!("{:?}", told.last()))
            }
        })
        .await?;
    }
    // The hook of one table goes with it, the other stays.
    wait::until("the hook is gone", SETTLED_WITHIN, || async {
        let all = shown(&cluster, "all").await.map_err(|error| error.to_string())?;
        all.map_or(Ok(()), |hook| Err(hook.to_string()))
    })
    .await?;
    if shown(&cluster, "now").await?.is_none() {
        return violated("a hook for all tables went with one".to_owned());
    }
    cluster.run(&["hook", "remove", "now"]).await?.ok()?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_are_too_far_behind_begin_again_with_the_live_files() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 0).env("TIDEWATER_GC_GRACE", "1s");
    // What was told is compared with what is live a moment later.
    let plan = plan.env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.env("TIDEWATER_HOOK_RETENTION_VERSIONS", "5").start().await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?.region_id;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let path = add(&cluster, "audit", &["--from", "1"]).await?;
    told_all(&cluster, &path, region).await?;
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let before = tail(&cluster, region).await?;
    while tail(&cluster, region).await? < before + 20 {
        load.progress(5).await?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    load.stop().await?;
    wait::until("what it has still to be told is cleaned", SETTLED_WITHIN, || async {
        let said =
            cluster.run(&["gc", "--output", "json"]).await.and_then(|said| said.ok()?.json());
        let said = said.map_err(|error| error.to_string())?;
        let covered = said["objects"].as_array().into_iter().flatten();
        let covered = covered.filter(|object| object["why"] == "covered").count();
        if covered > 0 { Ok(()) } else { Err(said.to_string()) }
    })
    .await?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    let told = told_all(&cluster, &path, region).await?;
    if !told.iter().any(|line| line["event"] == "bootstrap" && version_of(line) > before) {
        return violated("it did not begin again".to_owned());
    }
    let live: BTreeSet<String> = live_files(&cluster, LOG_TABLE).await?.into_iter().collect();
    if live_by(&told) != live {
        return violated(format!("{:?} told, {live:?} live", live_by(&told)));
    }
    cluster.finish().await
}
