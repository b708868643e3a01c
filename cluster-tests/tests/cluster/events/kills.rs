//! Kills of the recorder, of data nodes and of the meta leader while events are recorded.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tidewater_cluster_tests::Result;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tokio::time::sleep;

use super::numbers::NumberedEvents;
use super::table::EventTable;
use crate::support::{setting, wait_for_level};

/// Process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Recorder,
    DataNode,
    MetaLeader,
}

/// Longest time between two kills.
const MOST_BETWEEN_MS: u64 = 2_000;
/// Longest time until a killed node is started again.
const MOST_DOWN_MS: u64 = 1_500;

async fn wait_up_to(random: &mut StdRng, most_ms: u64) {
    sleep(Duration::from_millis(random.random_range(0..most_ms))).await;
}

async fn kill(
    cluster: &mut Cluster,
    events: &mut NumberedEvents,
    victim: Victim,
    random: &mut StdRng,
) -> Result<()> {
    let node = match victim {
        Victim::Recorder => return events.kill(cluster).await,
        Victim::DataNode => {
            let index = random.random_range(0..cluster.data.len());
            &mut cluster.data[index]
        }
        Victim::MetaLeader => {
            let (leader, _) = cluster.meta_leader().await?;
            &mut cluster.meta[leader]
        }
    };
    node.kill().await?;
    wait_up_to(random, MOST_DOWN_MS).await;
    node.start().await
}

/// Invariant V1; `TIDEWATER_EVENT_KILLS=200` is its full length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spooled_events_are_written_once_despite_kills() -> Result<()> {
    let kills: usize = setting("TIDEWATER_EVENT_KILLS", 6);
    let seed: u64 = setting("TIDEWATER_EVENT_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_EVENT_SEED={seed} TIDEWATER_EVENT_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = ClusterPlan::default().events().start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    let mut events = NumberedEvents::start(&cluster)?;
    let mut victims = Vec::new();
    for number in 0..kills {
        if victims.is_empty() {
            victims = vec![Victim::Recorder, Victim::DataNode, Victim::MetaLeader];
            victims.shuffle(&mut random);
        }
        let victim = victims.pop().unwrap_or(Victim::Recorder);
        wait_up_to(&mut random, MOST_BETWEEN_MS).await;
        println!("kill {}: {victim:?}", number + 1);
        kill(&mut cluster, &mut events, victim, &mut random).await?;
    }
    cluster.wait_until_healthy().await?;
    events.verify(&cluster, &table).await?;
    cluster.finish().await
}
