//! What hooks are told of compactions on compactors.

use std::path::Path;

use serde_json::{Map, Value};
use tidewater_cluster_tests::cluster::{Cluster, Plan};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::expect;
use crate::support::SETTLED_WITHIN;

/// What differs between two regions with the same rows: their sequences, and what comes of them.
const APART: [&str; 13] = [
    "region_id",
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

/// A table of three files that overlap; its region.
async fn table(cluster: &Cluster, name: &str) -> Result<String> {
    let columns = ["--columns", "k int64, note utf8", "--primary-key", "k"];
    cluster.run(&[&["table", "create", name], &columns[..]].concat()).await?.ok()?;
    let file = cluster.folder().join(format!("{name}.csv"));
    for round in 0..3 {
        let rows: String = (0..500).map(|k| format!("{},{round}\n", k * (round + 1))).collect();
        std::fs::write(&file, format!("k,note\n{rows}")).map_err(HarnessError::io("a csv file"))?;
        cluster.run(&["load", name, &file.display().to_string()]).await?.ok()?;
        cluster.flush(name).await?.ok()?;
    }
    Ok(cluster.region(name).await?.region_id.to_string())
}

async fn hook(cluster: &Cluster, name: &str, flags: &[&str]) -> Result<std::path::PathBuf> {
    let path = cluster.folder().join(format!("{name}.jsonl"));
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let add = ["hook", "add", name, "--kind", "jsonl", "--config", &config];
    cluster.run(&[&add, flags].concat()).await?.ok()?;
    Ok(path)
}

/// The calls of one region after the first `skip`.
fn calls(path: &Path, region: &str, skip: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let region: u64 = region.parse().expect("a number");
    lines.filter(|line| line["region_id"] == region).skip(skip).collect()
}

fn compared(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !APART.contains(&name.as_str()));
            Value::Object(
                kept.map(|(name, value)| (name.clone(), compared(value))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(values) => values.iter().map(compared).collect(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_are_told_the_same_wherever_a_compaction_ran() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 1).env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.start().await?;
    let (here, there) = (table(&cluster, "here").await?, table(&cluster, "there").await?);
    let all = hook(&cluster, "all", &[]).await?;
    let kept = hook(&cluster, "kept", &["--durable"]).await?;
    let other = hook(&cluster, "other", &["--table", "here"]).await?;
    let paused = hook(&cluster, "paused", &[]).await?;
    cluster.run(&["hook", "pause", "paused"]).await?.ok()?;
    let compact = ["region", "compact", "--output", "json"];
    let report = wait::until("a compactor is known", SETTLED_WITHIN, || async {
        let said = cluster.run(&[&compact, &[there.as_str(), "--remote"][..]].concat()).await;
        said.and_then(|said| said.ok()?.json()).map_err(|error| error.to_string())
    })
    .await?;
    cluster.run(&[&compact, &[here.as_str(), "--local"][..]].concat()).await?.ok()?;

    let compactor = cluster.node_id(&cluster.compactors[0].spec).await?;
    let (remote, local) = (calls(&all, &there, 0), calls(&all, &here, 0));
    expect("two calls each", remote.len() == 2 && local.len() == 2, (&remote, &local))?;
    for (remote, local) in remote.iter().zip(&local) {
        expect("the same is told", compared(remote) == compared(local), (remote, local))?;
        let homes = (&remote["node_role"], &remote["node_id"], &local["node_role"]);
        let expected = (&"compactor".into(), &compactor.into(), &"data".into());
        expect("each where it ran", homes == expected, homes)?;
    }
    expect("the version", remote[1]["manifest_version"] == report["manifest_version"], &remote[1])?;
    let unasked = calls(&other, &there, 0).len() + calls(&paused, &there, 0).len();
    expect("what was not passed is not called", unasked == 0, unasked)?;

    // The commit of a compactor is a version like any other.
    let version = report["manifest_version"].as_u64().unwrap_or(0);
    let told = wait::until("the durable hook is told", SETTLED_WITHIN, || async {
        let told = calls(&kept, &there, 0);
        let found = told.iter().find(|line| line["manifest_version"] == version).cloned();
        found.ok_or_else(|| format!("{} calls, none of version {version}", told.len()))
    })
    .await?;
    expect("by the owner", told["node_role"] == "data", &told)?;
    expect("the same files", told["files"] == remote[1]["files"], (&told, &remote[1]))?;

    let shown = wait::until("the calls are counted", SETTLED_WITHIN, || async {
        let shown = cluster.run(&["hook", "list", "--output", "json"]).await;
        let shown = shown.and_then(|said| said.ok()?.json()).map_err(|error| error.to_string())?;
        if shown[0]["calls"] == 4 { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await?;
    expect("of all nodes", shown[0]["name"] == "all" && shown[0]["failures"] == 0, &shown)?;
    cluster.finish().await
}
