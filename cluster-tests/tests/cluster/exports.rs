//! Exports: the files below a prefix, read in order, give the table as of the frontier, whatever is killed.

mod bucket;
mod refusals;
mod replay;

use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, Store};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::{Instant, sleep_until};

use self::replay::{expect_replay, prefix};
use crate::beside_duckdb::{self, Step, TABLE};
use crate::support::{setting, wait_for_level};

/// Time between two kills.
const KILL_INTERVAL: Duration = Duration::from_secs(3);
/// Time until a killed node is started again.
const DOWN: Duration = Duration::from_millis(1_500);
/// Limit for a frontier that kills hold up.
const ADVANCED_WITHIN: Duration = Duration::from_secs(90);

/// Runs a command that must succeed; returns its JSON.
async fn json_of(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    cluster.run(&[args, &["--output", "json"]].concat()).await?.ok()?.json()
}

/// Returns the only export.
async fn export(cluster: &Cluster) -> std::result::Result<Value, String> {
    let listed = json_of(cluster, &["export", "list"]).await.map_err(|error| error.to_string())?;
    listed.get(0).cloned().ok_or_else(|| "no export is listed".to_owned())
}

/// Creates the export `lake` of a table; its first step may not be completed yet.
async fn create(cluster: &Cluster, table: &str) -> Result<Value> {
    let url = format!("file://{}", prefix(cluster).display());
    json_of(cluster, &["export", "create", "lake", "--table", table, "--to", &url, "--every", "1s"])
        .await
}

/// Waits until the frontier is at or above an epoch; returns it.
async fn frontier_from(cluster: &Cluster, epoch: u64) -> Result<u64> {
    wait::until("the export advances", ADVANCED_WITHIN, || async {
        let export = export(cluster).await?;
        let frontier = export["frontier"].as_u64();
        frontier.filter(|frontier| *frontier >= epoch).ok_or_else(|| export.to_string())
    })
    .await
}

/// Returns the epoch of the last barrier.
async fn last_epoch(cluster: &Cluster) -> Result<u64> {
    let export = export(cluster).await.map_err(HarnessError::violated)?;
    export["upper"].as_u64().ok_or_else(|| HarnessError::violated(export.to_string()))
}

/// Node that is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    DataNode(usize),
    MetaLeader,
}

/// Applies steps until a time.
async fn apply_until(
    cluster: &Cluster,
    directory: &Path,
    steps: &mut impl Iterator<Item = Step>,
    end: Instant,
) -> Result<()> {
    while Instant::now() < end
        && let Some(step) = steps.next()
    {
        beside_duckdb::apply(cluster, directory, step).await?;
    }
    Ok(())
}

/// Returns a step in the form that an export can replay: columns are added without a default, which rows from before would
/// show, and none is dropped. An export holds up truncations.
fn replayed(step: Step) -> Option<Step> {
    match step {
        Step::AddColumn { name, .. } => Some(Step::AddColumn { name, default: None }),
        Step::DropColumn { .. } | Step::Truncate | Step::Checkpoint { .. } => None,
        step => Some(step),
    }
}

/// Invariant K4; `TIDEWATER_EXPORT_KILLS=40` is its full length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_replays_to_its_table_despite_kills() -> Result<()> {
    let kills: usize = setting("TIDEWATER_EXPORT_KILLS", 5);
    let seed: u64 = setting("TIDEWATER_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_SEED={seed} TIDEWATER_EXPORT_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    let (directory, plan) = beside_duckdb::prepare(&cluster, seed).await?;
    let steps: Vec<Step> = plan.into_iter().filter_map(replayed).collect();
    let is_repeated = |step: &Step| !matches!(step, Step::AddColumn { .. });
    let again: Vec<Step> = steps.iter().filter(|step| is_repeated(step)).cloned().collect();
    let mut steps = steps.into_iter().chain(again.into_iter().cycle());
    apply_until(&cluster, &directory, &mut steps, Instant::now() + KILL_INTERVAL).await?;
    create(&cluster, TABLE).await?;
    for number in 1..=kills {
        let begun = Instant::now();
        let victims = [0, 1, 2].map(Victim::DataNode).into_iter().chain([Victim::MetaLeader; 2]);
        let victims: Vec<Victim> = victims.collect();
        let victim = *victims.choose(&mut random).unwrap_or(&Victim::MetaLeader);
        println!("kill {number}: {victim:?}");
        let (nodes, index) = match victim {
            Victim::DataNode(index) => (&mut cluster.data, index),
            Victim::MetaLeader => {
                let (leader, _) = cluster.meta_leader().await?;
                (&mut cluster.meta, leader)
            }
        };
        nodes[index].kill().await?;
        apply_until(&cluster, &directory, &mut steps, begun + DOWN).await?;
        sleep_until(begun + DOWN + Duration::from_millis(random.random_range(0..200))).await;
        let nodes = match victim {
            Victim::DataNode(_) => &mut cluster.data,
            Victim::MetaLeader => &mut cluster.meta,
        };
        nodes[index].start().await?;
        apply_until(&cluster, &directory, &mut steps, begun + KILL_INTERVAL).await?;
        sleep_until(begun + KILL_INTERVAL).await;
        if number == kills / 2 {
            // In the middle of the updates.
            expect_replay(&cluster, "lake", TABLE).await?;
        }
    }
    cluster.wait_until_healthy().await?;
    let last = last_epoch(&cluster).await?;
    frontier_from(&cluster, last).await?;
    expect_replay(&cluster, "lake", TABLE).await?;
    println!("{}", export(&cluster).await.map_err(HarnessError::violated)?);
    json_of(&cluster, &["export", "drop", "lake"]).await?;
    json_of(&cluster, &["table", "drop", TABLE]).await?;
    cluster.finish().await
}
