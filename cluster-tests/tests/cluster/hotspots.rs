//! Routes that follow the load: a hot route is split and its parts spread over the nodes under load, and they are merged
//! again when the load has gone.

use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use crate::reader::Reader;
use crate::splits::routes;
use crate::support::{setting, wait_for_level, wait_until_replicas_agree};

/// Writers of decreasing rates, each with its own range of keys.
const WRITERS: i64 = 8;
/// Pause of the first writer; the next ones pause longer and longer, so that their rates are close to a Zipf
/// distribution.
const PAUSE: Duration = Duration::from_millis(15);
/// Limit for windows to be known, for a split and moves, and for merges.
const CHANGED_WITHIN: Duration = Duration::from_secs(480);

async fn advice(cluster: &Cluster) -> Result<Value> {
    cluster.run(&["route", "advise", "--output", "json"]).await?.ok()?.json()
}

async fn set(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    cluster.run(&[&["balance", "set"], settings].concat()).await?.ok()?;
    Ok(())
}

fn score(advice: &Value, field: &str) -> u64 {
    advice[field].as_u64().unwrap_or_default()
}

/// Waits for advice that is as expected, and returns it.
async fn wait_for(
    cluster: &Cluster,
    what: &str,
    is_expected: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait::until(what, CHANGED_WITHIN, || async {
        let advice = advice(cluster).await.map_err(|error| error.to_string())?;
        if is_expected(&advice) { Ok(advice) } else { Err(advice.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_follow_the_load() -> Result<()> {
    let cluster = Cluster::start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let mut loads = Vec::new();
    for writer in 1..=WRITERS {
        let pause = PAUSE * u32::try_from(writer).unwrap_or(1);
        let options =
            LoadOptions { writers: 1, first_writer: writer, pause, ..LoadOptions::default() };
        loads.push(Workload::start(&cluster, options).await?);
    }
    let reader = Reader::start(&cluster).await?;

    // Advice only: nothing is begun.
    let known = wait_for(&cluster, "the load is known", |advice| {
        score(advice, "mean_node_score") > 0
            && advice["groups_without_load"] == Value::Array(vec![])
    })
    .await?;
    let total = score(&known, "mean_node_score") * 3;
    let hot = (total / 3).to_string();
    set(&cluster, &["--split-score", &hot]).await?;
    let is_split = |line: &Value| line["kind"] == "split";
    let advised = wait_for(&cluster, "a split is advised", |advice| {
        advice["advice"].as_array().is_some_and(|lines| lines.iter().any(is_split))
    })
    .await?;
    println!("total score {total} per minute; advised: {}", advised["advice"]);
    if routes(&cluster, LOG_TABLE).await?.len() != 1 {
        return Err(HarnessError::violated("a route was split without --hotspots on"));
    }

    let begun = Instant::now();
    set(&cluster, &["--hotspots", "on", "--rest", "10s"]).await?;
    let even = wait_for(&cluster, "the load is spread over the nodes", |advice| {
        let (busiest, mean) =
            (score(advice, "busiest_node_score"), score(advice, "mean_node_score"));
        mean * 3 > total / 2 && busiest * 2 <= mean * 3
    })
    .await?;
    let spread = routes(&cluster, LOG_TABLE).await?.len();
    println!(
        "after {:.0?}, with {spread} routes: busiest node {}, mean {}",
        begun.elapsed(),
        even["busiest_node_score"],
        even["mean_node_score"]
    );
    let scans = reader.stop().await?;
    let mut attempts = Vec::new();
    for load in loads {
        attempts.extend(load.stop().await?);
    }
    // The last merge of several takes minutes: a minute without load precedes each of them.
    let left: usize = setting("TIDEWATER_ROUTES_LEFT", spread.saturating_sub(1));
    let begun = Instant::now();
    wait::until("the routes are merged again", CHANGED_WITHIN, || async {
        let routes = routes(&cluster, LOG_TABLE).await.map_err(|error| error.to_string())?;
        if routes.len() <= left { Ok(()) } else { Err(format!("{} routes", routes.len())) }
    })
    .await?;
    println!("{left} routes {:.0?} after the load has ended; {scans} scans", begun.elapsed());
    let verdict = cluster.verify(&attempts).await?;
    println!("{verdict}");
    wait_until_replicas_agree(&cluster, LOG_TABLE).await?;
    cluster.finish().await?;
    if spread < 3 || verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("{spread} routes, {verdict}")));
    }
    Ok(())
}
