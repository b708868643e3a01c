//! Calls of durable hooks that write JSON lines, and the account of files that follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result};

fn violated<T>(what: String) -> Result<T> {
    Err(HarnessError::violated(what))
}

/// Adds a durable hook that writes JSON lines; returns the path of its file.
pub(crate) async fn add(cluster: &Cluster, name: &str, more: &[&str]) -> Result<PathBuf> {
    let path = cluster.hook_directory().join(format!("{name}.jsonl"));
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let args = ["hook", "add", name, "--kind", "jsonl", "--config", &config, "--durable"];
    cluster.run(&[args.as_slice(), more].concat()).await?.ok()?;
    Ok(path)
}

/// Returns the complete lines of a hook's file; none if the file does not exist.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Returns the calls for one region without repeats. Fails if a version is missing or out of order (H4).
pub(crate) fn received(path: &Path, region: u64) -> Result<Vec<Value>> {
    let mut firsts: Vec<Value> = Vec::new();
    let mut known = None;
    for line in lines(path).into_iter().filter(|line| line["region_id"] == region) {
        let version = line["manifest_version"].as_u64().unwrap_or(0);
        let begins = line["event"] == "bootstrap";
        match known {
            Some(known) if version <= known => continue,
            Some(known) if version > known + 1 && !begins => {
                return violated(format!("region {region}: {version} follows {known}"));
            }
            _ => {}
        }
        known = Some(version);
        firsts.push(line);
    }
    Ok(firsts)
}

pub(crate) fn version_of(line: &Value) -> u64 {
    line["manifest_version"].as_u64().unwrap_or(0)
}

pub(crate) fn paths(line: &Value) -> impl Iterator<Item = String> {
    let files = line["files"].as_array().cloned().unwrap_or_default();
    files.into_iter().filter_map(|file| file["path"].as_str().map(str::to_owned))
}

/// Returns the live files according to the calls of a hook.
pub(crate) fn live_by_calls(calls: &[Value]) -> BTreeSet<String> {
    let name = |file: &Value| format!("{} {}", file["file_id"], file["clip"]);
    let mut live: BTreeMap<String, (String, u64)> = BTreeMap::new();
    // Sequence up to which rows are deleted, also those of files that are added later.
    let mut truncated = None;
    for line in calls {
        if line["event"] == "bootstrap" {
            live.clear();
            truncated = None;
        } else if line["manifest"] != "live" && line["by_reference"].is_null() {
            // A region that replaces others begins with their files.
            continue;
        }
        for file in line["files"].as_array().into_iter().flatten() {
            let path = file["path"].as_str().unwrap_or_default().to_owned();
            let last = file["max_sequence"].as_u64().unwrap_or_default();
            live.insert(name(file), (path, last));
        }
        for action in line["actions"].as_array().into_iter().flatten() {
            truncated = truncated.max(action["truncate"]["up_to"].as_u64());
            for file in action["truncate"]["files"].as_array().into_iter().flatten() {
                live.remove(&name(file));
            }
            for file in action["edit"]["remove"].as_array().into_iter().flatten() {
                live.remove(&name(file));
            }
        }
        live.retain(|_, (_, last)| Some(*last) > truncated);
    }
    live.into_values().map(|(path, _)| path).collect()
}

/// Returns the live files of a region and the version of its manifest, both as the object store has them: a leader
/// learns of a compaction that the leader before it has published when it next reads the manifest, within ten minutes.
pub(crate) async fn live_in(cluster: &Cluster, region: u64) -> Result<(BTreeSet<String>, u64)> {
    let id = region.to_string();
    let manifest = cluster.run(&["region", "manifest", &id, "--output", "json"]).await?.ok()?;
    let state = manifest.json()?["state"].take();
    let files = state["files"].as_array().into_iter().flatten();
    let paths = files.filter_map(|file| file["path"].as_str().map(str::to_owned)).collect();
    Ok((paths, state["version"].as_u64().unwrap_or(0)))
}

/// Compares the account of a hook with the live files of a region, of which it has received all versions.
///
/// # Errors
/// The difference; the hook may not have received the last version yet.
pub(crate) async fn check_account(
    cluster: &Cluster,
    path: &Path,
    region: u64,
) -> std::result::Result<(), String> {
    let (live, version) = live_in(cluster, region).await.map_err(|error| error.to_string())?;
    let calls = received(path, region).map_err(|error| error.to_string())?;
    let (first, last) = (calls.first().map_or(0, version_of), calls.last().map_or(0, version_of));
    let by_calls = live_by_calls(&calls);
    if first == 1 && last == version && by_calls == live {
        return Ok(());
    }
    Err(format!(
        "region {region}: versions {first} to {last} of {version}, {by_calls:?} called, {live:?} live"
    ))
}
