//! Barriers of all groups, and of all groups but a stalled one.

use std::time::Duration;

use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::stub::{BarrierTimes, ReachTimes};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::GroupId;

use crate::options::Options;
use crate::report::Report;
use crate::scene::Scene;

/// Time of each measurement: ten barriers at the default interval.
const WINDOW: Duration = Duration::from_secs(11);

/// Measures barriers at the default interval.
pub(crate) async fn measure(scene: &Scene, options: &Options, report: &mut Report) -> Result<()> {
    let groups = options.nodes * options.groups;
    wait_for_groups(scene, groups, options.limit).await?;
    let before = scene.leader_metrics().await?;
    measure_window(scene, "barriers", report).await?;
    let metrics = scene.leader_metrics().await?;
    if let Some(seconds) = metrics.mean_since(&before, "tidewater_barrier_call_seconds") {
        report.add_time("barriers", "call, at the leader: mean", Duration::from_secs_f64(seconds));
    }
    report.add("barriers", "late groups", late_groups(&metrics), "");

    scene.stubs.world().barriers.stall([GroupId(1)]);
    wait_for_groups(scene, groups - 1, options.limit).await?;
    measure_window(scene, "a stalled group", report).await?;
    let metrics = scene.leader_metrics().await?;
    report.add("a stalled group", "late groups", late_groups(&metrics), "");
    scene.stubs.world().barriers.stall([]);
    wait_for_groups(scene, groups, options.limit).await
}

fn late_groups(metrics: &Metrics) -> f64 {
    metrics.sum("tidewater_barrier_late_groups") as f64
}

/// Waits for a barrier that this number of groups has applied.
async fn wait_for_groups(scene: &Scene, groups: usize, limit: Duration) -> Result<()> {
    let log = &scene.stubs.world().barriers;
    log.clear();
    wait::until("a barrier is at all groups", limit, || async {
        let last = log.barriers().last().map_or(0, |barrier| barrier.groups);
        if last == groups { Ok(()) } else { Err(format!("{last} of {groups}")) }
    })
    .await
}

async fn measure_window(scene: &Scene, scenario: &str, report: &mut Report) -> Result<()> {
    let log = &scene.stubs.world().barriers;
    log.clear();
    tokio::time::sleep(WINDOW).await;
    let mut barriers = log.barriers();
    // The calls of the last one may be in progress.
    barriers.pop();
    if barriers.is_empty() {
        return Err(HarnessError::violated("no barrier has arrived"));
    }
    let mean = |value: fn(&BarrierTimes) -> usize| {
        barriers.iter().map(value).sum::<usize>() as f64 / barriers.len() as f64
    };
    report.add(scenario, "barriers", barriers.len() as f64, "");
    report.add(scenario, "calls of a barrier: mean", mean(|barrier| barrier.calls), "");
    report.add(scenario, "groups of a barrier: mean", mean(|barrier| barrier.groups), "");
    let times = ReachTimes::new(barriers.iter().map(BarrierTimes::spread).collect());
    report.add_time(scenario, "first call to last group: median", times.median());
    report.add_time(scenario, "first call to last group: longest", times.last());
    Ok(())
}
