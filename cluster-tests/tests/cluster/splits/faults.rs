//! Random splits, merges, moves, loads, truncations, alters and clones while nodes are killed and frozen: no acknowledged
//! row is lost, no deleted one returns, and each change ends once.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, Store};
use tidewater_cluster_tests::node::{Node, Signal};
use tidewater_cluster_tests::{HarnessError, Result};
use tokio::time::{Instant, sleep};

use super::administrator::TABLES;
use super::clients::Clients;
use crate::events::restarts::expect_restarts;
use crate::support::{keep_routes, setting, wait_for_level};

/// Time for the fewest changes, after the time of the faults.
const CHANGE_WITHIN: Duration = Duration::from_secs(120);

/// Limit for the cluster to be healthy after a fault: changes of routes that a fault has delayed are problems, and on a
/// busy machine their steps take a while.
const REPAIRED_WITHIN: Duration = Duration::from_secs(180);

/// Kills a node and starts it again.
async fn restart(node: &mut Node, after: Duration) -> Result<()> {
    node.kill().await?;
    sleep(after).await;
    node.start().await
}

/// Injects one fault, and repairs it. Returns the position of the data node that was killed, if one was. `spared`: position of a
/// data node without faults.
pub(super) async fn inject(
    cluster: &mut Cluster,
    random: &mut StdRng,
    spared: Option<usize>,
) -> Result<Option<usize>> {
    let time = Duration::from_millis(random.random_range(0..2_500));
    let (leader, _) = cluster.meta_leader().await?;
    let running = (0..cluster.data.len()).filter(|at| cluster.data[*at].is_running());
    let running: Vec<usize> = running.filter(|at| Some(*at) != spared).collect();
    let data = running[random.random_range(0..running.len())];
    let fault = random.random_range(0..7);
    println!("fault {fault} of data node {data} or meta node {leader}, {time:?}");
    match fault {
        0 | 1 => restart(&mut cluster.data[data], time).await?,
        2 => restart(&mut cluster.meta[leader], time).await?,
        3 | 4 => {
            let node = if fault == 3 { &cluster.data[data] } else { &cluster.meta[leader] };
            node.signal(Signal::Stop).await?;
            sleep(time).await;
            node.signal(Signal::Continue).await?;
        }
        5 => {
            for compactor in &mut cluster.compactors {
                restart(compactor, time).await?;
            }
        }
        _ => {
            for table in TABLES {
                // Regions may be replaced between.
                let flushed = cluster.run(&["region", "flush", "--table", table]).await?;
                let compacted = cluster.run(&["region", "compact", "--table", table]).await?;
                for output in [flushed, compacted] {
                    println!("{table}: {:?} {}", output.status, output.stderr.trim());
                }
            }
        }
    }
    cluster.wait_until_healthy_within(REPAIRED_WITHIN).await?;
    Ok(matches!(fault, 0 | 1).then_some(data))
}

// C3, C5, H4, V1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_during_changes_of_routes_lose_no_write() -> Result<()> {
    let time = Duration::from_secs(setting("TIDEWATER_SPLIT_SECONDS", 15));
    let seed: u64 = setting("TIDEWATER_SPLIT_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_SPLIT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let plan = ClusterPlan::default().store(Store::S3).nodes(3, 3, 1);
    let mut cluster = plan.events().start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    let clients = Clients::start(&cluster, seed).await?;
    let mut kills = vec![0; cluster.data.len()];
    let end = Instant::now() + time;
    while Instant::now() < end || clients.completed.lacking().contains(&true) {
        if Instant::now() > end + CHANGE_WITHIN {
            return Err(HarnessError::violated("too few changes were completed"));
        }
        clients.load.progress(40).await?;
        if let Some(killed) = inject(&mut cluster, &mut random, None).await? {
            kills[killed] += 1;
        }
    }
    expect_restarts(&cluster, &kills).await?;
    clients.conclude(cluster).await
}
