//! Loss of a rack of data nodes, and kills of the meta leader.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewater_cluster_tests::Result;
use tidewater_proto::v1::NodeState;
use tokio::time::Instant;

use crate::mirror::States;
use crate::options::Options;
use crate::report::Report;
use crate::scene::Scene;

/// Time for which the meta leader must not change after a failover.
const STAYS: Duration = Duration::from_secs(6);

/// Kills nodes that share few groups, waits until the catalog has the loss, and restarts them. Groups that lose their majority
/// wait for the restart.
pub(crate) async fn measure_rack(
    scene: &mut Scene,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    const SCENARIO: &str = "rack lost";
    if options.rack == 0 {
        return Ok(());
    }
    let before = scene.calls.revision().await?;
    let terms = scene.terms_led()?;
    // A group has its replicas on neighbouring nodes, as a rule.
    let step = options.nodes / options.rack;
    let lost: Vec<usize> = (0..options.rack).map(|number| number * step).collect();
    let ids: BTreeSet<u64> = lost.iter().map(|lost| scene.stubs.nodes[*lost].id().get()).collect();
    let begun = Instant::now();
    scene.stubs.kill(lost);
    let down = async {
        let unmet = |states: &States| ids.len().saturating_sub(states.nodes_with(NodeState::Down));
        scene.wait_for_catalog("the lost nodes are down", options.limit, unmet).await?;
        Result::<_>::Ok(begun.elapsed())
    };
    let led = async {
        let unmet = |states: &States| states.without_leader(|node| ids.contains(&node));
        scene.wait_for_catalog("other nodes lead their groups", options.limit, unmet).await?;
        Result::<_>::Ok(begun.elapsed())
    };
    let (led, down) = tokio::join!(led, down);
    report.add_time(SCENARIO, "other nodes lead their groups", led?);
    report.add_time(SCENARIO, "nodes are down in the catalog", down?);
    let stopped = scene.mirror.read(|states| states.without_majority(|node| ids.contains(&node)));
    report.add(SCENARIO, "groups without a majority", stopped as f64, "");
    let created = Instant::now();
    scene.calls.create_table("after_loss", options.routes).await?;
    report.add_time(SCENARIO, "creation of a table", created.elapsed());
    let revision = scene.calls.revision().await?;
    scene.watchers.wait_until_at(revision, options.limit).await?;
    report.add(SCENARIO, "revisions", revision.saturating_sub(before) as f64, "");
    let begun = Instant::now();
    scene.stubs.restart_dead().await?;
    scene
        .wait_for_catalog("all nodes are up", options.limit, |states| {
            states.nodes_with(NodeState::Down)
        })
        .await?;
    report.add_time(SCENARIO, "nodes are up again after their restart", begun.elapsed());
    scene
        .wait_for_catalog("all groups are led", options.limit, |states| {
            states.without_leader(|_| false)
        })
        .await?;
    report.add_time(SCENARIO, "all groups are led after it", begun.elapsed());
    let elections = scene.terms_led()?.saturating_sub(terms);
    report.add(SCENARIO, "changes of the meta leader", elections as f64, "");
    scene.settle(options.limit).await
}

/// Kills the meta leader while all stubs are connected.
pub(crate) async fn measure_failover(
    scene: &mut Scene,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    const SCENARIO: &str = "failover";
    for _ in 0..options.kills {
        scene.settle(options.limit).await?;
        let leader = scene.leader().await?;
        let terms = scene.terms_led()?;
        let gaps = scene.watchers.counters().snapshots.load(Ordering::SeqCst);
        scene.cluster.meta[leader].kill().await?;
        let killed = Instant::now();
        let command = async {
            scene.calls.command().await?;
            Result::<_>::Ok(killed.elapsed())
        };
        let watchers = scene.watchers.wait_until_reconnected(killed, options.limit);
        let nodes = async {
            scene.calls.command().await?;
            let revision = scene.calls.revision().await?;
            // Events of the dead leader may still be in flight at first.
            let elected = Instant::now();
            scene.stubs.wait_until_served(elected, revision, options.limit).await?;
            Result::<_>::Ok(killed.elapsed())
        };
        let (command, watchers, nodes) = tokio::join!(command, watchers, nodes);
        report.add_time(SCENARIO, "first catalog command", command?);
        let reconnected = watchers?;
        report.add_time(SCENARIO, "half of the watchers are connected", reconnected.median());
        report.add_time(SCENARIO, "all watchers are connected", reconnected.last());
        report.add_time(SCENARIO, "all nodes are served, within a second", nodes?);
        tokio::time::sleep(STAYS).await;
        let elections = scene.terms_led()?.saturating_sub(terms);
        report.add(SCENARIO, "terms of new leaders", elections as f64, "");
        let later = scene.watchers.counters().snapshots.load(Ordering::SeqCst);
        report.add(SCENARIO, "snapshots to watchers", later.saturating_sub(gaps) as f64, "");
        scene.cluster.meta[leader].start().await?;
    }
    scene.settle(options.limit).await
}
