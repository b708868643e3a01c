//! Measures failover: kills of the group leader, then of the meta leader, with writes in flight.
//!
//! Time is from the kill to the first acknowledgement of a write after it. For the meta leader, the
//! time to the first catalog command that succeeds is measured too. `failover [KILLS]`, 20 unless
//! said otherwise; `scripts/bench failover` runs it on a release build.

use std::time::Duration;

use tidewater_client::Client;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{Load, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

/// For a catalog command after a kill of the meta leader.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let kills = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    group_leader(kills).await?;
    meta_leader(kills).await
}

async fn group_leader(kills: u32) -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let mut times = Vec::new();
    for _ in 0..kills {
        let leader = cluster.owner(LOG_TABLE).await?;
        cluster.data[leader].kill().await?;
        load.mark();
        times.push(load.resumed().await?);
        cluster.data[leader].start().await?;
        cluster.healthy().await?;
        load.progress(20).await?;
    }
    report("group leader killed: first acknowledged write after", times);
    end(cluster, load).await
}

async fn meta_leader(kills: u32) -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let client = Client::connect(options(&cluster))
        .await
        .map_err(|error| HarnessError::violated(error.to_string()))?;
    let (mut writes, mut commands) = (Vec::new(), Vec::new());
    for _ in 0..kills {
        let (leader, _) = cluster.meta_leader().await?;
        cluster.meta[leader].kill().await?;
        load.mark();
        let killed = Instant::now();
        let command = wait::until("a catalog command succeeds", COMMAND_WITHIN, || async {
            let answer = client.bench_command(vec![0; 256].into()).await;
            answer.map(|_| killed.elapsed()).map_err(|error| error.to_string())
        });
        let (command, write) = tokio::join!(command, load.resumed());
        commands.push(command?);
        writes.push(write?);
        cluster.meta[leader].start().await?;
        cluster.healthy().await?;
        load.progress(20).await?;
    }
    report("meta leader killed: first acknowledged write after", writes);
    report("meta leader killed: first catalog command after", commands);
    end(cluster, load).await
}

async fn end(cluster: Cluster, load: Workload) -> Result<()> {
    let attempts = load.stop().await?;
    println!("  oracle: {}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| {
        let index = (times.len() * part).div_ceil(100).saturating_sub(1);
        times.get(index).map_or(0.0, Duration::as_secs_f64)
    };
    println!(
        "{what} ({} kills): median {:.2} s, p90 {:.2} s, max {:.2} s",
        times.len(),
        at(50),
        at(90),
        at(100)
    );
}
