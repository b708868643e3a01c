//! Hook calls for compactions on compactors.

use std::path::Path;

use serde_json::{Map, Value};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::expect;
use crate::support::SETTLED_WITHIN;

/// Fields that differ between two regions with the same rows, such as sequences.
const REGION_SPECIFIC_FIELDS: [&str; 16] = [
    "region_id",
    "table_id",
    "table",
    "job",
    "node_id",
    "node_role",
    "manifest_version",
    "time_ms",
    "file_id",
    "path",
    "origin",
    "min_sequence",
    "max_sequence",
    "checksum",
    "bytes",
    "hook",
];

/// Creates a table of three overlapping files; returns its region.
async fn create_table(cluster: &Cluster, name: &str) -> Result<String> {
    let columns = ["--columns", "k int64, note utf8", "--primary-key", "k"];
    cluster.run(&[&["table", "create", name], &columns[..]].concat()).await?.ok()?;
    let file = cluster.directory().join(format!("{name}.csv"));
    for round in 0..3 {
        let rows: String = (0..500).map(|k| format!("{},{round}\n", k * (round + 1))).collect();
        std::fs::write(&file, format!("k,note\n{rows}")).map_err(HarnessError::io("a csv file"))?;
        cluster.run(&["load", name, &file.display().to_string()]).await?.ok()?;
        cluster.flush(name).await?.ok()?;
    }
    Ok(cluster.region(name).await?.region_id.to_string())
}

async fn add_hook(cluster: &Cluster, name: &str, flags: &[&str]) -> Result<std::path::PathBuf> {
    let path = cluster.hook_directory().join(format!("{name}.jsonl"));
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let add = ["hook", "add", name, "--kind", "jsonl", "--config", &config];
    cluster.run(&[&add, flags].concat()).await?.ok()?;
    Ok(path)
}

/// Returns the calls for one region after the first `skip`.
fn calls(path: &Path, region: &str, skip: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let region: u64 = region.parse().expect("a number");
    lines.filter(|line| line["region_id"] == region).skip(skip).collect()
}

fn without_region_specific_fields(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept =
                fields.iter().filter(|(name, _)| !REGION_SPECIFIC_FIELDS.contains(&name.as_str()));
            let kept =
                kept.map(|(name, value)| (name.clone(), without_region_specific_fields(value)));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(values) => values.iter().map(without_region_specific_fields).collect(),
        other => other.clone(),
    }
}

/// Checks schema and column statistics of a call with files of `create_table`.
fn check_file_fields(call: &Value) -> Result<()> {
    let identity = call["table_id"].as_u64() > Some(0) && call["incarnation"].as_u64() > Some(0);
    expect("the call has table and incarnation", identity, call)?;
    let columns = &call["schema"]["columns"];
    let named = columns[0]["name"] == "k" && columns[1]["name"] == "note";
    expect("the call has the schema", named, call)?;
    let files = call["files"].as_array().cloned().unwrap_or_default();
    expect("the call has files", !files.is_empty(), call)?;
    for file in &files {
        let [key, note] = [&file["columns"][0], &file["columns"][1]];
        let bounds = (&key["min"], &key["nulls"], &note["min"], &note["max"]);
        let expected = (&"0".into(), &0.into(), &"0".into(), &"2".into());
        expect("the files have statistics", bounds == expected, file)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_receive_same_calls_from_local_and_remote_compactions() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.start().await?;
    let local_region = create_table(&cluster, "local").await?;
    let remote_region = create_table(&cluster, "remote").await?;
    let all = add_hook(&cluster, "all", &[]).await?;
    let durable = add_hook(&cluster, "durable", &["--durable"]).await?;
    let other = add_hook(&cluster, "other", &["--table", "local"]).await?;
    let paused = add_hook(&cluster, "paused", &[]).await?;
    cluster.run(&["hook", "pause", "paused"]).await?.ok()?;
    let compact = ["region", "compact", "--output", "json"];
    let report = wait::until("a compactor is known", SETTLED_WITHIN, || async {
        let remote = [remote_region.as_str(), "--remote"];
        let output = cluster.run(&[&compact, &remote[..]].concat()).await;
        output.and_then(|output| output.ok()?.json()).map_err(|error| error.to_string())
    })
    .await?;
    cluster.run(&[&compact, &[local_region.as_str(), "--local"][..]].concat()).await?.ok()?;

    let compactor = cluster.node_id(&cluster.compactors[0].spec).await?;
    let remote = calls(&all, &remote_region, 0);
    let local = calls(&all, &local_region, 0);
    expect("each region has two calls", remote.len() == 2 && local.len() == 2, (&remote, &local))?;
    for (remote, local) in remote.iter().zip(&local) {
        let equal = without_region_specific_fields(remote) == without_region_specific_fields(local);
        expect("the calls are equal", equal, (remote, local))?;
        let nodes = (&remote["node_role"], &remote["node_id"], &local["node_role"]);
        let expected = (&"compactor".into(), &compactor.into(), &"data".into());
        expect("the calls name the node that ran the job", nodes == expected, nodes)?;
        let tables = (&remote["table"], &local["table"]);
        expect("the calls name the table", tables == (&"remote".into(), &"local".into()), tables)?;
        check_file_fields(remote)?;
    }
    let version = &report["manifest_version"];
    expect("the call has the version", remote[1]["manifest_version"] == *version, &remote[1])?;
    let unexpected =
        calls(&other, &remote_region, 0).len() + calls(&paused, &remote_region, 0).len();
    expect("hooks of other tables and paused hooks are not called", unexpected == 0, unexpected)?;

    // The durable hook receives the commit of a compactor like any other version.
    let version = version.as_u64().unwrap_or(0);
    let call = wait::until("the durable hook receives the version", SETTLED_WITHIN, || async {
        let calls = calls(&durable, &remote_region, 0);
        let found = calls.iter().find(|line| line["manifest_version"] == version).cloned();
        found.ok_or_else(|| format!("{} calls, none of version {version}", calls.len()))
    })
    .await?;
    expect("the owner calls the durable hook", call["node_role"] == "data", &call)?;
    let by_job = call["author"]["job"].is_string() && call["author"] == remote[1]["author"];
    expect("the author is the job", by_job, (&call["author"], &remote[1]["author"]))?;
    expect("the durable call names the table", call["table"] == "remote", &call)?;
    check_file_fields(&call)?;
    let same_files = call["files"] == remote[1]["files"];
    expect("the files are the same", same_files, (&call, &remote[1]))?;

    let hooks = wait::until("the calls are counted", SETTLED_WITHIN, || async {
        let hooks = cluster.run(&["hook", "list", "--output", "json"]).await;
        let hooks =
            hooks.and_then(|output| output.ok()?.json()).map_err(|error| error.to_string())?;
        if hooks[0]["calls"] == 4 { Ok(hooks) } else { Err(hooks.to_string()) }
    })
    .await?;
    let counted = hooks[0]["name"] == "all" && hooks[0]["failures"] == 0;
    expect("calls of all nodes are counted", counted, &hooks)?;
    cluster.finish().await
}
