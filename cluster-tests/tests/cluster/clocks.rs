//! Nodes with wrong wall clocks: nothing expires early, nothing is lost, and the cluster keeps working,
//! also after the clock is right again.

use std::time::Duration;

use tidewater_cluster_tests::clock::WallClock;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, wait_for_problem};

const TABLE: &str = "events";
const ROWS: u64 = 40;
/// Offsets of a clock, and the words with which `cluster status` reports them.
const OFFSETS: [(&str, &str); 4] =
    [("+1y", "ahead of"), ("-1y", "behind"), ("+3600", "ahead of"), ("-3600", "behind")];
/// Setting of the interval of compactions, which drop expired files first, and a longer time.
const COMPACTION_EVERY: (&str, &str) = ("TIDEWATER_COMPACTION_EVERY", "1s");
const COMPACTED_WITHIN: Duration = Duration::from_secs(4);

/// Creates a table whose rows live for 30 days.
async fn create(cluster: &Cluster) -> Result<()> {
    let columns = ["--columns", "id int64, at timestamp(ms)", "--primary-key", "id,at"];
    let options = ["--time-column", "at", "--ttl", "30d"];
    cluster.run(&[&["table", "create", TABLE][..], &columns, &options].concat()).await?.ok()?;
    Ok(())
}

/// Loads rows with these ids, which expire in 45 minutes: early on a clock that is an hour ahead.
async fn add_rows(cluster: &Cluster, first: u64, how: &[&str]) -> Result<()> {
    add_rows_of("-30 days +45 minutes", cluster, first, how).await
}

/// Loads rows with these ids and this time.
async fn add_rows_of(time: &str, cluster: &Cluster, first: u64, how: &[&str]) -> Result<()> {
    let date = tokio::process::Command::new("date")
        .args(["-u", "-d", time, "+%FT%TZ"])
        .output()
        .await
        .map_err(HarnessError::io("run date"))?;
    let at = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let lines: String = (first..first + ROWS).map(|id| format!("{id},{at}\n")).collect();
    let path = cluster.directory().join(format!("{first}.csv"));
    std::fs::write(&path, format!("id,at\n{lines}")).map_err(HarnessError::io("write rows"))?;
    let path = path.display().to_string();
    cluster.run(&[&["load", TABLE, &path][..], how].concat()).await?.ok()?;
    Ok(())
}

async fn expect_rows(cluster: &Cluster, rows: u64, when: &str) -> Result<()> {
    let found = cluster.count(TABLE).await?;
    if found == rows {
        return Ok(());
    }
    Err(HarnessError::violated(format!("{when}: {found} rows, expected {rows}")))
}

/// Waits until a command succeeds: a group may be changing its leader.
async fn wait_for_success(cluster: &Cluster, args: &[&str]) -> Result<CommandOutput> {
    let what = format!("{args:?} succeeds");
    wait::until(&what, SETTLED_WITHIN, || async {
        let output = cluster.run(args).await.and_then(CommandOutput::ok);
        output.map_err(|error| error.to_string())
    })
    .await
}

async fn compact(cluster: &Cluster, how: &[&str]) -> Result<CommandOutput> {
    let region = cluster.region(TABLE).await?.region_id.to_string();
    cluster.run(&[&["region", "compact", &region][..], how].concat()).await
}

/// Compacts the region at this place: `--local` or `--remote`.
async fn wait_for_compaction(cluster: &Cluster, place: &str) -> Result<()> {
    let region = cluster.region(TABLE).await?.region_id.to_string();
    wait_for_success(cluster, &["region", "compact", &region, place]).await.map(drop)
}

/// Flushes the region; its new owner may have to read the manifest first.
async fn flush(cluster: &Cluster) -> Result<()> {
    let region = cluster.region(TABLE).await?.region_id.to_string();
    wait_for_success(cluster, &["region", "flush", &region]).await.map(drop)
}

/// Another replica becomes the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_with_wrong_clock_expires_nothing() -> Result<()> {
    let mut cluster = ClusterPlan::default().prepare().await?;
    let mut clocks = Vec::new();
    for node in 0..cluster.data.len() {
        let clock = WallClock::create(cluster.directory(), &format!("data-{node}"))?;
        clock.attach(&mut cluster.data[node].spec);
        clocks.push(clock);
    }
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    create(&cluster).await?;
    add_rows(&cluster, 0, &[]).await?;
    cluster.flush(TABLE).await?.ok()?;
    let mut rows = ROWS;
    for (offset, words) in OFFSETS {
        let owner = cluster.owner(TABLE).await?;
        clocks[owner].set(offset)?;
        wait_for_problem(&cluster, words, true).await?;
        wait::until("another node owns the region", SETTLED_WITHIN, || async {
            match cluster.owner(TABLE).await.map_err(|error| error.to_string())? {
                other if other != owner => Ok(()),
                _ => Err("its clock is wrong, and it owns the region".to_owned()),
            }
        })
        .await?;
        add_rows(&cluster, rows, &[]).await?;
        rows += ROWS;
        flush(&cluster).await?;
        expect_rows(&cluster, rows, offset).await?;
        let health = cluster.run(&["cluster", "health"]).await?;
        if health.status == Some(0) {
            return Err(HarnessError::violated("the cluster is healthy with a wrong clock"));
        }
        clocks[owner].set("+0")?;
        cluster.wait_until_healthy().await?;
        wait_for_compaction(&cluster, "--local").await?;
        expect_rows(&cluster, rows, "after the clock was right again").await?;
    }
    cluster.finish().await
}

/// The only replica keeps its leadership, and accepts writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_data_node_with_wrong_clock_refuses_flushes() -> Result<()> {
    let (name, value) = COMPACTION_EVERY;
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).env(name, value).prepare().await?;
    let clock = WallClock::create(cluster.directory(), "data")?;
    clock.attach(&mut cluster.data[0].spec);
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    create(&cluster).await?;
    add_rows(&cluster, 0, &[]).await?;
    cluster.flush(TABLE).await?.ok()?;
    let mut rows = ROWS;
    for (round, (offset, words)) in OFFSETS.into_iter().enumerate() {
        clock.set(offset)?;
        wait_for_problem(&cluster, words, true).await?;
        add_rows(&cluster, rows, &[]).await?;
        rows += ROWS;
        let region = cluster.region(TABLE).await?.region_id.to_string();
        let flushed = cluster.run(&["region", "flush", &region, "--timeout", "5s"]).await?;
        if flushed.status == Some(0) || !flushed.stderr.contains("clock") {
            return Err(HarnessError::violated(format!("flush: {}", flushed.stderr)));
        }
        tokio::time::sleep(COMPACTED_WITHIN).await;
        expect_rows(&cluster, rows, offset).await?;
        // The node also starts with a wrong clock.
        if round % 2 == 0 {
            cluster.data[0].kill().await?;
            cluster.data[0].start().await?;
            wait_for_problem(&cluster, words, true).await?;
            expect_rows(&cluster, rows, "after a restart").await?;
        }
        clock.set("+0")?;
        cluster.wait_until_healthy().await?;
        flush(&cluster).await?;
        wait_for_compaction(&cluster, "--local").await?;
        expect_rows(&cluster, rows, "after the clock was right again").await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactor_with_wrong_clock_gets_no_jobs() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 1).prepare().await?;
    let clock = WallClock::create(cluster.directory(), "compactor")?;
    clock.attach(&mut cluster.compactors[0].spec);
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    create(&cluster).await?;
    let mut rows = 0;
    for (offset, words) in OFFSETS {
        for _ in 0..2 {
            add_rows(&cluster, rows, &[]).await?;
            rows += ROWS;
            cluster.flush(TABLE).await?.ok()?;
        }
        clock.set(offset)?;
        wait_for_problem(&cluster, words, true).await?;
        let refused = compact(&cluster, &["--remote", "--timeout", "5s"]).await?;
        if refused.status == Some(0) {
            return Err(HarnessError::violated(format!("{offset}: {}", refused.stdout)));
        }
        // The data node compacts.
        wait_for_compaction(&cluster, "--local").await?;
        expect_rows(&cluster, rows, offset).await?;
        clock.set("+0")?;
        cluster.wait_until_healthy().await?;
        add_rows(&cluster, rows, &[]).await?;
        rows += ROWS;
        cluster.flush(TABLE).await?.ok()?;
        wait_for_compaction(&cluster, "--remote").await?;
        expect_rows(&cluster, rows, "after the clock was right again").await?;
    }
    cluster.finish().await
}

/// The bootstrapping meta node has a wrong clock, then another one leads, then the clock is right again.
async fn run_with_wrong_meta_clock(offset: &str, words: &str) -> Result<()> {
    let plan = ClusterPlan::default().nodes(3, 4, 0).env("TIDEWATER_REPLACE_AFTER", "5s");
    let mut cluster = plan.prepare().await?;
    let clock = WallClock::create(cluster.directory(), "meta")?;
    clock.set(offset)?;
    clock.attach(&mut cluster.meta[0].spec);
    cluster.start_all().await?;
    create_when_possible(&cluster).await?;
    make_leader(&cluster, 0).await?;
    wait_for_problem(&cluster, words, true).await?;
    add_rows(&cluster, 0, &[]).await?;
    cluster.flush(TABLE).await?.ok()?;
    expect_rows(&cluster, ROWS, offset).await?;
    cluster.run(&["gc"]).await?.ok()?;
    // Replicated time advances: the lost node is replaced.
    let owner = cluster.owner(TABLE).await?;
    cluster.data[owner].kill().await?;
    make_leader(&cluster, 1).await?;
    cluster.wait_until_healthy().await?;
    expect_rows(&cluster, ROWS, "after the repair").await?;
    add_rows(&cluster, ROWS, &["--atomic"]).await?;
    clock.set("+0")?;
    make_leader(&cluster, 0).await?;
    cluster.wait_until_healthy().await?;
    flush(&cluster).await?;
    wait_for_compaction(&cluster, "--local").await?;
    expect_rows(&cluster, 2 * ROWS, "after the clock was right again").await?;
    cluster.finish().await
}

async fn create_when_possible(cluster: &Cluster) -> Result<()> {
    wait::until("the table is created", SETTLED_WITHIN, || async {
        create(cluster).await.map_err(|error| error.to_string())
    })
    .await
}

/// Makes a meta node the leader.
async fn make_leader(cluster: &Cluster, index: usize) -> Result<()> {
    let to = (index + 1).to_string();
    wait::until(&format!("meta node {to} leads"), SETTLED_WITHIN, || async {
        let (leader, _) = cluster.meta_leader().await.map_err(|error| error.to_string())?;
        if leader == index {
            return Ok(());
        }
        let transferred = cluster.run(&["group", "transfer-leader", "0", "--to", &to]).await;
        let transferred = transferred.and_then(CommandOutput::ok);
        Err(format!("meta node {} leads: {:?}", leader + 1, transferred.err()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_node_a_year_ahead_does_not_drag_time() -> Result<()> {
    run_with_wrong_meta_clock("+1y", "the meta leader's clock").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_node_a_year_behind_does_not_stop_time() -> Result<()> {
    run_with_wrong_meta_clock("-1y", "the meta leader's clock").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_node_an_hour_ahead_does_not_drag_time() -> Result<()> {
    run_with_wrong_meta_clock("+3600", "the meta leader's clock").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meta_node_an_hour_behind_does_not_stop_time() -> Result<()> {
    run_with_wrong_meta_clock("-3600", "the meta leader's clock").await
}

/// Finding A4 of the review: replicated time catches up after an outage, so that no deadline by it has
/// passed on the nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atomic_loads_work_after_an_outage_of_days() -> Result<()> {
    let mut cluster = ClusterPlan::default().prepare().await?;
    let clock = WallClock::create(cluster.directory(), "all")?;
    for node in cluster.meta.iter_mut().chain(&mut cluster.data) {
        clock.attach(&mut node.spec);
    }
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    create(&cluster).await?;
    add_rows_of("yesterday", &cluster, 0, &["--atomic"]).await?;
    for node in cluster.data.iter_mut().chain(&mut cluster.meta) {
        node.terminate().await?;
    }
    clock.set("+3d")?;
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    // It is begun once replicated time has followed the clocks: its deadline does not pass at once.
    add_rows_of("yesterday", &cluster, ROWS, &["--atomic"]).await?;
    expect_rows(&cluster, 2 * ROWS, "after the outage").await?;
    cluster.flush(TABLE).await?.ok()?;
    // Data nodes receive the new time with their next heartbeats.
    wait_for_success(&cluster, &["gc"]).await?;
    expect_rows(&cluster, 2 * ROWS, "after a garbage collection pass").await?;
    cluster.finish().await
}
