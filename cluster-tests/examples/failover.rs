//! Measures failover: kills of the group leader, then of the meta leader, with writes in flight.
//!
//! Time is from the kill to the first acknowledgement of a write after it. For the meta leader, the
//! time to the first catalog command that succeeds is measured too. After each kill all that writers
//! were ever told is compared with a scan. `failover [KILLS]`, 20 unless said otherwise;
//! `scripts/bench failover` runs it on a release build. Ends with an error when the oracle finds
//! anything, or a median is above what R4 promises.

use std::time::Duration;

use tidewater_client::Client;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::failover::{Findings, Times};
use tidewater_cluster_tests::oracle::Attempt;
use tidewater_cluster_tests::workload::{Load, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

/// For a catalog command after a kill of the meta leader.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let kills = match std::env::args().nth(1) {
        None => 20,
        Some(text) => text.parse().map_err(|_| {
            HarnessError::violated(format!("`{text}` is not a number of kills: failover [KILLS]"))
        })?,
    };
    let mut findings = Findings::default();
    group_leader(kills, &mut findings).await?;
    meta_leader(kills, &mut findings).await?;
    if findings.sentences().is_empty() {
        Ok(())
    } else {
        Err(HarnessError::violated(findings.sentences().join("\n")))
    }
}

async fn group_leader(kills: u32, findings: &mut Findings) -> Result<()> {
    let mut series = Series::start().await?;
    let mut writes = Times::of("group leader killed: first acknowledged write after");
    for kill in 1..=kills {
        let load = series.load().await?;
        let leader = series.cluster.owner(LOG_TABLE).await?;
        series.cluster.data[leader].kill().await?;
        load.mark();
        let took = load.resumed().await?;
        writes.add(took);
        series.cluster.data[leader].start().await?;
        let name = format!("kill {kill} of a group leader");
        series.judge(load, &name, &format!("write after {:.2} s", secs(took)), findings).await?;
    }
    findings.times(&writes);
    println!("{writes}");
    series.cluster.finish().await
}

async fn meta_leader(kills: u32, findings: &mut Findings) -> Result<()> {
    let mut series = Series::start().await?;
    let client = Client::connect(options(&series.cluster))
        .await
        .map_err(|error| HarnessError::violated(error.to_string()))?;
    let mut writes = Times::of("meta leader killed: first acknowledged write after");
    let mut commands = Times::of("meta leader killed: first catalog command after");
    for kill in 1..=kills {
        let load = series.load().await?;
        let (leader, _) = series.cluster.meta_leader().await?;
        series.cluster.meta[leader].kill().await?;
        load.mark();
        let killed = Instant::now();
        let command = wait::until("a catalog command succeeds", COMMAND_WITHIN, || async {
            let answer = client.bench_command(vec![0; 256].into()).await;
            answer.map(|_| killed.elapsed()).map_err(|error| error.to_string())
        });
        let (command, write) = tokio::join!(command, load.resumed());
        let (command, write) = (command?, write?);
        commands.add(command);
        writes.add(write);
        series.cluster.meta[leader].start().await?;
        let name = format!("kill {kill} of the meta leader");
        let times =
            format!("write after {:.2} s, command after {:.2} s", secs(write), secs(command));
        series.judge(load, &name, &times, findings).await?;
    }
    for times in [&writes, &commands] {
        findings.times(times);
        println!("{times}");
    }
    series.cluster.finish().await
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// A cluster, and all that its writers were told so far.
struct Series {
    cluster: Cluster,
    attempts: Vec<Attempt>,
    next_writer: i64,
}

impl Series {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        cluster.create_log_table().await?;
        Ok(Self { cluster, attempts: Vec::new(), next_writer: 1 })
    }

    /// New writers for each kill: the oracle speaks when all have been told what came of their writes.
    async fn load(&mut self) -> Result<Workload> {
        let load = Load { first_writer: self.next_writer, ..Load::default() };
        self.next_writer += load.writers;
        Workload::start(&self.cluster, load).await
    }

    /// The verdict on everything since the beginning, when the cluster is whole again.
    async fn judge(
        &mut self,
        load: Workload,
        kill: &str,
        times: &str,
        findings: &mut Findings,
    ) -> Result<()> {
        self.cluster.healthy().await?;
        load.progress(20).await?;
        self.attempts.extend(load.stop().await?);
        let verdict = self.cluster.verdict(&self.attempts).await?;
        println!("  {kill}: {times}; oracle: {verdict}");
        findings.verdict(kill, &verdict);
        Ok(())
    }
}
