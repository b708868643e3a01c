//! A program that embeds a data node with its own source kind: the example of the crate, as a process.

use std::process::Stdio;
use std::time::Duration;

use tidewater_cluster_tests::cluster::ClusterPlan;
use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::expect;
use crate::support::wait_for_level;

const WITHIN: Duration = Duration::from_secs(60);

/// Starts the example, and waits until it is ready. It ends when it is dropped.
async fn start(arguments: [&str; 4]) -> Result<Child> {
    let mut child = Command::new(binary::example("own_source")?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(HarnessError::io("start the example"))?;
    let out = child.stdout.take().ok_or_else(|| HarnessError::violated("no output"))?;
    let mut out = BufReader::new(out).lines();
    let ready = tokio::time::timeout(WITHIN, out.next_line()).await;
    match ready.map(|line| line.ok().flatten()) {
        Ok(Some(line)) if line.starts_with("ready ") => Ok(child),
        other => Err(HarnessError::violated(format!("the example printed {other:?}"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_data_node_reads_its_own_source_kind() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 0, 0).start().await?;
    let directory = cluster.directory().join("own").display().to_string();
    let meta = cluster.meta_addresses()[0].clone();
    let _example = start(["127.0.0.1:0", &directory, &meta, cluster.store_url()]).await?;
    wait_for_level(&cluster).await?;
    let create = |name: &'static str, kind: &'static str, config: &'static str| {
        let columns = ["--columns", "n int64", "--primary-key", "n"];
        let source = ["--source", kind, "--config", config];
        [&["refresh", "create", name], &columns[..], &source[..]].concat()
    };
    let unknown = create("numbers", "no-such-kind", "{}");
    expect(&cluster, 2, &unknown, &["unknown source kind", "numbers"]).await?;
    let invalid = create("numbers", "numbers", r#"{"limit": "x"}"#);
    expect(&cluster, 2, &invalid, &["limit must be a number"]).await?;
    let valid = create("numbers", "numbers", r#"{"limit": 1000}"#);
    wait::until("the table is created", WITHIN, || async {
        let created = cluster.run(&valid).await.and_then(|output| output.ok());
        created.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    cluster.run(&["refresh", "start", "numbers"]).await?.ok()?;
    let count = cluster.run(&["scan", "numbers", "--count"]).await?.ok()?;
    if count.stdout.trim() != "1000" {
        return Err(HarnessError::violated(format!("{} rows", count.stdout)));
    }
    cluster.finish().await
}
