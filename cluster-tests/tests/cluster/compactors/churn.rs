//! Compactors that come and go while there is much to do.

use std::time::Duration;

use futures::future::join_all;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, Plan};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::node::{Node, Signal};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use super::expect;
use crate::garbage::only_live_files;
use crate::support::{SETTLED_WITHIN, conclude};

/// Regions of the table that writers fill; two tables of one region are emptied and dropped.
const REGIONS: u32 = 8;
const JOBS: u64 = 100;
const KILL_EVERY: Duration = Duration::from_secs(2);
/// Much longer than it takes.
const LIMIT: Duration = Duration::from_secs(200);

/// How the planned jobs of a data node have ended.
#[derive(Debug, Default)]
struct Tally {
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

impl Tally {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let metrics = Metrics::of(cluster.data[0].spec.listen).await?;
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

    /// Nothing is under way, and every job has come to one end.
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
    let ids = regions.as_array().into_iter().flatten().map(|one| one["region_id"].to_string());
    Ok(ids.collect())
}

/// Kills a compactor, in the midst of a job if one is seen there soon.
async fn strike(compactor: Option<&Node>) -> Result<()> {
    let Some(compactor) = compactor else { return Ok(()) };
    let _ = wait::until("a job runs", KILL_EVERY, || async {
        let metrics =
            Metrics::of(compactor.spec.listen).await.map_err(|error| error.to_string())?;
        let running = metrics.sum("tidewater_compactor_jobs_running");
        if running > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    compactor.signal(Signal::Kill).await
}

/// One round of a table that does not stay: two files, truncated or dropped while they are merged.
async fn come_and_go(cluster: &Cluster, name: &str, round: u32) -> Result<()> {
    let columns = ["--columns", "k int64", "--primary-key", "k"];
    let said = cluster.run(&[&["table", "create", name], &columns[..]].concat()).await?;
    if said.status != Some(4) {
        said.ok()?;
    }
    let file = cluster.folder().join(format!("{name}.csv"));
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
async fn a_hundred_jobs_are_done_while_compactors_are_killed() -> Result<()> {
    let plan = Plan::default()
        .nodes(1, 1, 2)
        .env("TIDEWATER_COMPACTION_EVERY", "100ms")
        .env("TIDEWATER_COMPACTION_PATIENCE", "5s")
        .env("TIDEWATER_COMPACTION_QUARANTINE", "3s")
        .env("TIDEWATER_FALLBACK_TO_LOCAL", "false")
        .env("TIDEWATER_GC_GRACE", "1s")
        .env("TIDEWATER_GC_EVERY", "2s");
    let mut cluster = plan.start().await?;
    cluster.create_log_table_of(REGIONS).await?;
    let regions = all_regions(&cluster, LOG_TABLE).await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    let (began, mut kills, mut round) = (Instant::now(), 0_usize, 0);
    let (mut next_kill, mut dead) = (Instant::now() + KILL_EVERY, None);
    loop {
        let tally = Tally::of(&cluster).await?;
        let seen = tally.discarded > 0 && tally.retries > 0;
        if tally.committed >= JOBS && seen && kills >= 5 {
            break;
        }
        if began.elapsed() > LIMIT {
            return expect("a hundred jobs, some discarded and some retried", false, &tally);
        }
        let victim = (Instant::now() >= next_kill).then(|| kills % cluster.compactors.len());
        if victim.is_some() {
            next_kill += KILL_EVERY;
            if let Some(index) = dead.take() {
                let node: &mut Node = &mut cluster.compactors[index];
                node.kill().await?;
                node.start().await?;
            }
            (dead, kills) = (victim, kills + 1);
        }
        let flushes = regions.iter().map(|region| {
            let args = ["region", "flush", region];
            let cluster = &cluster;
            async move { cluster.run(&args).await?.ok() }
        });
        let name = ["emptied", "gone"][round as usize % 2];
        let (flushed, gone, killed) = tokio::join!(
            join_all(flushes),
            come_and_go(&cluster, name, round),
            strike(victim.map(|index| &cluster.compactors[index]))
        );
        killed?;
        flushed.into_iter().collect::<Result<Vec<_>>>()?;
        gone?;
        round += 1;
    }
    if let Some(index) = dead {
        cluster.compactors[index].kill().await?;
        cluster.compactors[index].start().await?;
    }
    // What was emptied keeps nothing from before, and what was dropped nothing at all.
    come_and_go(&cluster, "emptied", 0).await?;
    let file = cluster.folder().join("emptied.csv");
    cluster.run(&["load", "emptied", &file.display().to_string()]).await?.ok()?;
    cluster.flush("emptied").await?.ok()?;
    let said = cluster.run(&["table", "drop", "gone"]).await?;
    expect("it is gone", matches!(said.status, Some(0 | 3)), &said)?;
    let tally = wait::until("every job has come to an end", SETTLED_WITHIN, || async {
        let tally = Tally::of(&cluster).await.map_err(|error| error.to_string())?;
        if tally.adds_up() { Ok(tally) } else { Err(format!("{tally:?}")) }
    })
    .await?;
    println!("{kills} kills: {tally:?}");
    let attempts = load.stop().await?;
    only_live_files(&cluster, &[LOG_TABLE, "emptied"]).await?;
    let rows = cluster.count("emptied").await?;
    expect("what was loaded last", rows == 3, rows)?;
    println!("{}", cluster.verify(&attempts).await?);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_rolling_restart_but_the_metrics() -> Result<()> {
    let plan = Plan::default().nodes(1, 1, 2).env("TIDEWATER_COMPACTION_EVERY", "100ms");
    let mut cluster = plan.start().await?;
    cluster.create_log_table_of(4).await?;
    let regions = all_regions(&cluster, LOG_TABLE).await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    for round in 0..6 {
        if round % 2 == 1 {
            let index = round / 2 % cluster.compactors.len();
            // It ends by itself, with status 0, when its jobs are done.
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
    let tally = wait::until("every job has come to an end", SETTLED_WITHIN, || async {
        let tally = Tally::of(&cluster).await.map_err(|error| error.to_string())?;
        if tally.planned == tally.ended { Ok(tally) } else { Err(format!("{tally:?}")) }
    })
    .await?;
    println!("{tally:?}");
    let all = tally.planned > 0 && tally.quarantined + tally.discarded == 0;
    expect("every job is done", all && tally.committed > 0, &tally)?;
    let metrics = Metrics::of(cluster.data[0].spec.listen).await?;
    let failed = metrics.sum("tidewater_compactions_failed_total");
    expect("none has failed", failed == 0, failed)?;
    conclude(cluster, load).await.map(drop)
}
