//! Compactors that are killed and restarted under a high load of jobs.

use std::time::Duration;

use futures::future::join_all;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::node::{Node, Signal};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use super::expect;
use crate::garbage::expect_only_live_files;
use crate::support::{SETTLED_WITHIN, conclude};

/// Regions of the table that writers fill. Two more tables of one region are truncated and dropped.
const REGIONS: u32 = 8;
const JOBS: u64 = 100;
const KILL_EVERY: Duration = Duration::from_secs(2);
/// Much longer than the scenario takes.
const LIMIT: Duration = Duration::from_secs(400);

/// Outcomes of the planned jobs of a data node.
#[derive(Debug, Default)]
struct JobCounts {
    planned: u64,
    ended: u64,
    committed: u64,
    discarded: u64,
    quarantined: u64,
    untaken: u64,
    attempts: u64,
    refusals: u64,
    retries: u64,
    fallbacks: u64,
}

impl JobCounts {
    async fn fetch(cluster: &Cluster) -> Result<Self> {
        let metrics = Metrics::fetch(cluster.data[0].spec.listen).await?;
        let jobs = "tidewater_compaction_jobs_total";
        let outcome = |name| metrics.labelled(jobs, "outcome", name);
        Ok(Self {
            planned: metrics.sum("tidewater_compaction_jobs_planned_total"),
            ended: metrics.sum(jobs),
            committed: outcome("committed"),
            discarded: outcome("discarded"),
            quarantined: outcome("quarantined"),
            untaken: outcome("untaken"),
            attempts: metrics.sum("tidewater_compaction_attempts_total"),
            refusals: metrics.sum("tidewater_compaction_refusals_total"),
            retries: metrics.sum("tidewater_compaction_retries_total"),
            fallbacks: metrics.sum("tidewater_compaction_fallbacks_total"),
        })
    }

    /// Returns true if no job is in progress and every job has exactly one outcome.
    fn adds_up(&self) -> bool {
        self.planned == self.ended
            && self.committed + self.discarded + self.quarantined + self.untaken == self.ended
            && self.attempts >= self.refusals + self.committed
            && self.fallbacks == 0
    }
}

async fn all_regions(cluster: &Cluster, table: &str) -> Result<Vec<String>> {
    let list = ["region", "list", "--table", table, "--output", "json"];
    let regions = cluster.run(&list).await?.ok()?.json()?;
    let regions = regions.as_array().into_iter().flatten();
    Ok(regions.map(|region| region["region_id"].to_string()).collect())
}

/// Kills a compactor, within a job if one starts there soon.
async fn kill_during_job(compactor: Option<&Node>) -> Result<()> {
    let Some(compactor) = compactor else { return Ok(()) };
    let _ = wait::until("a job runs", KILL_EVERY, || async {
        let metrics =
            Metrics::fetch(compactor.spec.listen).await.map_err(|error| error.to_string())?;
        let running = metrics.sum("tidewater_compactor_jobs_running");
        if running > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    compactor.signal(Signal::Kill).await
}

/// Creates and fills a table, and truncates or drops it during its compaction.
async fn truncate_or_drop_during_job(cluster: &Cluster, name: &str, round: u32) -> Result<()> {
    let columns = ["--columns", "k int64", "--primary-key", "k"];
    let output = cluster.run(&[&["table", "create", name], &columns[..]].concat()).await?;
    if output.status != Some(4) {
        output.ok()?;
    }
    let file = cluster.directory().join(format!("{name}.csv"));
    std::fs::write(&file, "k\n1\n2\n3\n").map_err(HarnessError::io("a csv file"))?;
    for _ in 0..4 {
        cluster.run(&["load", name, &file.display().to_string()]).await?.ok()?;
        cluster.flush(name).await?.ok()?;
    }
    let region = cluster.region(name).await?.region_id.to_string();
    let compact = ["region", "compact", &region];
    let verb = if round.is_multiple_of(2) { "truncate" } else { "drop" };
    let change = ["table", verb, name];
    let (_, changed) = tokio::join!(cluster.run(&compact), cluster.run(&change));
    changed?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_jobs_complete_while_compactors_are_killed() -> Result<()> {
    let plan = ClusterPlan::default()
        .nodes(1, 1, 2)
        .env("TIDEWATER_COMPACTION_EVERY", "100ms")
        .env("TIDEWATER_COMPACTION_PATIENCE", "5s")
        .env("TIDEWATER_COMPACTION_QUARANTINE", "3s")
        .env("TIDEWATER_FALLBACK_TO_LOCAL", "false")
        .env("TIDEWATER_GC_GRACE", "1s")
        .env("TIDEWATER_GC_EVERY", "2s");
    let mut cluster = plan.start().await?;
    cluster.create_log_table_with_regions(REGIONS).await?;
    let regions = all_regions(&cluster, LOG_TABLE).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let began = Instant::now();
    let mut kills = 0_usize;
    let mut round = 0;
    let mut next_kill = Instant::now() + KILL_EVERY;
    let mut dead = None;
    loop {
        let counts = JobCounts::fetch(&cluster).await?;
        let seen = counts.discarded > 0 && counts.retries > 0;
        if counts.committed >= JOBS && seen && kills >= 5 {
            break;
        }
        if began.elapsed() > LIMIT {
            return expect("a hundred jobs, some discarded and some retried", false, &counts);
        }
        let victim = (Instant::now() >= next_kill).then(|| kills % cluster.compactors.len());
        if victim.is_some() {
            next_kill += KILL_EVERY;
            if let Some(index) = dead.take() {
                let node: &mut Node = &mut cluster.compactors[index];
                node.kill().await?;
                node.start().await?;
            }
            dead = victim;
            kills += 1;
        }
        let flushes = regions.iter().map(|region| {
            let args = ["region", "flush", region];
            let cluster = &cluster;
            async move { cluster.run(&args).await?.ok() }
        });
        let name = ["truncated", "dropped"][round as usize % 2];
        let (flushed, changed, killed) = tokio::join!(
            join_all(flushes),
            truncate_or_drop_during_job(&cluster, name, round),
            kill_during_job(victim.map(|index| &cluster.compactors[index]))
        );
        killed?;
        flushed.into_iter().collect::<Result<Vec<_>>>()?;
        changed?;
        round += 1;
    }
    if let Some(index) = dead {
        cluster.compactors[index].kill().await?;
        cluster.compactors[index].start().await?;
    }
    // The truncated table has no earlier rows, and the dropped one does not exist.
    truncate_or_drop_during_job(&cluster, "truncated", 0).await?;
    let file = cluster.directory().join("truncated.csv");
    cluster.run(&["load", "truncated", &file.display().to_string()]).await?.ok()?;
    cluster.flush("truncated").await?.ok()?;
    let output = cluster.run(&["table", "drop", "dropped"]).await?;
    expect("the table is dropped", matches!(output.status, Some(0 | 3)), &output)?;
    let counts = wait::until("every job has ended", SETTLED_WITHIN, || async {
        let counts = JobCounts::fetch(&cluster).await.map_err(|error| error.to_string())?;
        if counts.adds_up() { Ok(counts) } else { Err(format!("{counts:?}")) }
    })
    .await?;
    println!("{kills} kills: {counts:?}");
    let attempts = load.stop().await?;
    expect_only_live_files(&cluster, &[LOG_TABLE, "truncated"]).await?;
    let rows = cluster.count("truncated").await?;
    expect("only the last rows are present", rows == 3, rows)?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_of_compactors_fails_no_job() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 2).env("TIDEWATER_COMPACTION_EVERY", "100ms");
    let mut cluster = plan.start().await?;
    cluster.create_log_table_with_regions(4).await?;
    let regions = all_regions(&cluster, LOG_TABLE).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    for round in 0..6 {
        if round % 2 == 1 {
            let index = round / 2 % cluster.compactors.len();
            // The compactor exits with status 0 when its jobs have completed.
            cluster.compactors[index].terminate().await?;
            cluster.compactors[index].start().await?;
        }
        for _ in 0..4 {
            load.progress(10).await?;
            for region in &regions {
                cluster.run(&["region", "flush", region]).await?.ok()?;
            }
        }
    }
    let counts = wait::until("every job has ended", SETTLED_WITHIN, || async {
        let counts = JobCounts::fetch(&cluster).await.map_err(|error| error.to_string())?;
        if counts.planned == counts.ended { Ok(counts) } else { Err(format!("{counts:?}")) }
    })
    .await?;
    println!("{counts:?}");
    let none_lost = counts.planned > 0 && counts.quarantined + counts.discarded == 0;
    expect("every job has completed", none_lost && counts.committed > 0, &counts)?;
    let metrics = Metrics::fetch(cluster.data[0].spec.listen).await?;
    let failed = metrics.sum("tidewater_compactions_failed_total");
    expect("no compaction has failed", failed == 0, failed)?;
    conclude(cluster, load).await.map(drop)
}
