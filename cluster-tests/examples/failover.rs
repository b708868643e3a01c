//! Measures failover: kills of the group leader, then of the meta leader, with writes in flight.
//!
//! The time is from the kill to the first acknowledgement of a write after it. For the meta leader,
//! the time to the first successful catalog command is measured as well. After each kill, the oracle
//! compares the outcomes of all writes with a scan. Usage: `failover [KILLS]`, 20 by default;
//! `scripts/bench failover` runs it on a release build. Exits with an error if the oracle finds a
//! violation, or if a median exceeds the limit of R4.

use std::time::Duration;

use tidewater_client::Client;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::failover::{FailoverTimes, Findings};
use tidewater_cluster_tests::oracle::Attempt;
use tidewater_cluster_tests::workload::{LoadOptions, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

/// Limit for the first catalog command after a kill of the meta leader.
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
    if findings.messages().is_empty() {
        Ok(())
    } else {
        Err(HarnessError::violated(findings.messages().join("\n")))
    }
}

async fn group_leader(kills: u32, findings: &mut Findings) -> Result<()> {
    let mut series = Series::start().await?;
    let mut writes = FailoverTimes::new("group leader killed: first acknowledged write after");
    for kill in 1..=kills {
        let load = series.load().await?;
        let leader = series.cluster.owner(LOG_TABLE).await?;
        series.cluster.data[leader].kill().await?;
        load.mark();
        let took = load.wait_until_resumed().await?;
        writes.add(took);
        series.cluster.data[leader].start().await?;
        let name = format!("kill {kill} of a group leader");
        series.verify(load, &name, &format!("write after {:.2} s", secs(took)), findings).await?;
    }
    findings.add_times(&writes);
    println!("{writes}");
    series.cluster.finish().await
}

async fn meta_leader(kills: u32, findings: &mut Findings) -> Result<()> {
    let mut series = Series::start().await?;
    let client = Client::connect(options(&series.cluster))
        .await
        .map_err(|error| HarnessError::violated(error.to_string()))?;
    let mut writes = FailoverTimes::new("meta leader killed: first acknowledged write after");
    let mut commands = FailoverTimes::new("meta leader killed: first catalog command after");
    for kill in 1..=kills {
        let load = series.load().await?;
        let (leader, _) = series.cluster.meta_leader().await?;
        series.cluster.meta[leader].kill().await?;
        load.mark();
        let killed = Instant::now();
        let command = wait::until("a catalog command succeeds", COMMAND_WITHIN, || async {
            let result = client.bench_command(vec![0; 256].into()).await;
            result.map(|_| killed.elapsed()).map_err(|error| error.to_string())
        });
        let (command, write) = tokio::join!(command, load.wait_until_resumed());
        let command = command?;
        let write = write?;
        commands.add(command);
        writes.add(write);
        series.cluster.meta[leader].start().await?;
        let name = format!("kill {kill} of the meta leader");
        let times =
            format!("write after {:.2} s, command after {:.2} s", secs(write), secs(command));
        series.verify(load, &name, &times, findings).await?;
    }
    for times in [&writes, &commands] {
        findings.add_times(times);
        println!("{times}");
    }
    series.cluster.finish().await
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// A cluster, and the outcomes of all writes so far.
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

    /// Starts new writers. Each kill has its own, because the oracle needs the outcome of every write.
    async fn load(&mut self) -> Result<Workload> {
        let load = LoadOptions { first_writer: self.next_writer, ..LoadOptions::default() };
        self.next_writer += load.writers;
        Workload::start(&self.cluster, load).await
    }

    /// Waits until the cluster is healthy and adds the verdict on all writes since the start.
    async fn verify(
        &mut self,
        load: Workload,
        kill: &str,
        times: &str,
        findings: &mut Findings,
    ) -> Result<()> {
        self.cluster.wait_until_healthy().await?;
        load.progress(20).await?;
        self.attempts.extend(load.stop().await?);
        let verdict = self.cluster.verdict(&self.attempts).await?;
        println!("  {kill}: {times}; oracle: {verdict}");
        findings.add_verdict(kill, &verdict);
        Ok(())
    }
}
