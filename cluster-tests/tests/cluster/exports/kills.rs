//! Kills of data nodes and meta leaders during steps of an export, while the table changes.

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, Store};
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::{Instant, sleep_until};

use super::replay::expect_replay;
use super::{ADVANCED_WITHIN, catch_up, create, export, json_of};
use crate::beside_duckdb::{self, Step, TABLE};
use crate::support::{setting, wait_for_level};

/// Time between two kills.
const KILL_INTERVAL: Duration = Duration::from_secs(3);
/// Time until a killed node is started again.
const DOWN: Duration = Duration::from_millis(1_500);
/// Primary key of the table.
const KEY: &str = "time_hour, carrier, flight";

/// Node that is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    DataNode(usize),
    MetaLeader(usize),
}

impl Victim {
    async fn choose(random: &mut StdRng, cluster: &Cluster) -> Result<Self> {
        match random.random_range(0..5_usize) {
            index @ 0..3 => Ok(Self::DataNode(index)),
            _ => Ok(Self::MetaLeader(cluster.meta_leader().await?.0)),
        }
    }

    fn node(self, cluster: &mut Cluster) -> &mut Node {
        match self {
            Self::DataNode(index) => &mut cluster.data[index],
            Self::MetaLeader(index) => &mut cluster.meta[index],
        }
    }
}

/// Returns a change in the form that an export can replay: columns are added without a default, which rows from before would
/// show, and none is dropped. Truncations of an exported table are refused.
fn replayed(step: Step) -> Option<Step> {
    match step {
        Step::AddColumn { name, .. } => Some(Step::AddColumn { name, default: None }),
        Step::DropColumn { .. } | Step::Truncate | Step::Checkpoint { .. } => None,
        step => Some(step),
    }
}

/// Changes of the table, applied one after the other.
struct Changes {
    /// Directory of their files.
    directory: PathBuf,
    steps: Box<dyn Iterator<Item = Step>>,
    /// Deletes of some rows.
    deletes: Step,
}

impl Changes {
    /// Creates the table.
    async fn prepare(cluster: &Cluster, seed: u64) -> Result<Self> {
        let (directory, plan) = beside_duckdb::prepare(cluster, seed).await?;
        let steps: Vec<Step> = plan.into_iter().filter_map(replayed).collect();
        let is_repeated = |step: &&Step| !matches!(step, Step::AddColumn { .. });
        let again: Vec<Step> = steps.iter().filter(is_repeated).cloned().collect();
        let deletes = steps.iter().find(|step| matches!(step, Step::Delete { .. })).cloned();
        let deletes = deletes.ok_or_else(|| HarnessError::violated("no deletes in the plan"))?;
        let steps = Box::new(steps.into_iter().chain(again.into_iter().cycle()));
        Ok(Self { directory, steps, deletes })
    }

    /// Applies changes until a time.
    async fn apply_until(&mut self, cluster: &Cluster, end: Instant) -> Result<()> {
        while Instant::now() < end
            && let Some(step) = self.steps.next()
        {
            beside_duckdb::apply(cluster, &self.directory, step).await?;
        }
        Ok(())
    }

    async fn delete_rows(&self, cluster: &Cluster) -> Result<()> {
        beside_duckdb::apply(cluster, &self.directory, self.deletes.clone()).await
    }
}

/// Waits until a step of the export is in progress; returns its epoch.
async fn step_in_progress(cluster: &Cluster) -> Result<u64> {
    wait::until("a step is in progress", ADVANCED_WITHIN, || async {
        let export = export(cluster).await?;
        export["step_as_of"].as_u64().ok_or_else(|| export.to_string())
    })
    .await
}

/// Checks that a step which was in progress keeps its epoch until it is completed. Returns whether it is still in progress.
async fn expect_continued(cluster: &Cluster, step: u64) -> Result<bool> {
    let listed = wait::until("the export is listed", ADVANCED_WITHIN, || export(cluster)).await?;
    let is_completed = listed["frontier"].as_u64() >= Some(step);
    if is_completed || listed["step_as_of"] == step {
        return Ok(!is_completed);
    }
    Err(HarnessError::violated(format!("the step as of {step} is lost: {listed}")))
}

/// Kills a node during a step of the export, and starts it again while the table changes.
async fn kill_during_step(
    cluster: &mut Cluster,
    victim: Victim,
    changes: &mut Changes,
    random: &mut StdRng,
) -> Result<()> {
    let step = step_in_progress(cluster).await?;
    let begun = Instant::now();
    victim.node(cluster).kill().await?;
    let is_in_progress = expect_continued(cluster, step).await?;
    println!("killed {victim:?}; the step is in progress afterwards: {is_in_progress}");
    changes.apply_until(cluster, begun + DOWN).await?;
    sleep_until(begun + DOWN + Duration::from_millis(random.random_range(0..200))).await;
    victim.node(cluster).start().await?;
    changes.apply_until(cluster, begun + KILL_INTERVAL).await
}

/// Invariant K4; `TIDEWATER_EXPORT_KILLS=40` is its full length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_replays_to_its_table_despite_kills() -> Result<()> {
    let kills: usize = setting("TIDEWATER_EXPORT_KILLS", 4);
    let seed: u64 = setting("TIDEWATER_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_SEED={seed} TIDEWATER_EXPORT_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = ClusterPlan::default().store(Store::S3).start().await?;
    wait_for_level(&cluster).await?;
    let mut changes = Changes::prepare(&cluster, seed).await?;
    changes.apply_until(&cluster, Instant::now() + KILL_INTERVAL).await?;
    create(&cluster, TABLE).await?;
    for number in 1..=kills {
        let victim = Victim::choose(&mut random, &cluster).await?;
        kill_during_step(&mut cluster, victim, &mut changes, &mut random).await?;
        if number == kills / 2 {
            // In the middle of the updates.
            expect_replay(&cluster, TABLE, KEY).await?;
        }
    }
    cluster.wait_until_healthy().await?;
    // Kills of meta leaders only may leave one step for all changes, and no changes after it.
    changes.apply_until(&cluster, Instant::now() + KILL_INTERVAL).await?;
    catch_up(&cluster).await?;
    changes.delete_rows(&cluster).await?;
    catch_up(&cluster).await?;
    let replayed = expect_replay(&cluster, TABLE, KEY).await?;
    println!("{}", export(&cluster).await.map_err(HarnessError::violated)?);
    if replayed.steps < 3 || replayed.deletes == 0 {
        return Err(HarnessError::violated(format!("no replay of many changes: {replayed:?}")));
    }
    json_of(&cluster, &["export", "drop", "lake"]).await?;
    json_of(&cluster, &["table", "drop", TABLE]).await?;
    cluster.finish().await
}
