//! Problems that `cluster status` reports, each until it is mended: then the cluster is healthy again.

use std::path::{Path, PathBuf};

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::{SETTLED_WITHIN, live_files, wait_for_kind};

const TABLE: &str = "t";
const ROWS: u64 = 5_000;

async fn create(cluster: &Cluster) -> Result<()> {
    let columns = ["--columns", "k int64, v utf8", "--primary-key", "k"];
    cluster.run(&[&["table", "create", TABLE][..], &columns].concat()).await?.ok()?;
    Ok(())
}

async fn load(cluster: &Cluster, first: u64) -> Result<()> {
    let path = cluster.directory().join("rows.csv");
    let rows: String = (first..first + ROWS).map(|key| format!("{key},value {key}\n")).collect();
    std::fs::write(&path, format!("k,v\n{rows}")).map_err(HarnessError::io("write rows"))?;
    cluster.run(&["load", TABLE, &path.display().to_string()]).await?.ok()?;
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(HarnessError::io(format!("move {}", from.display())))
}

/// Leader of a group in `group list`, 0 if none is shown.
async fn shown_leader(cluster: &Cluster, group: u64) -> Result<u64> {
    let groups = cluster.run(&["group", "list", "--output", "json"]).await?.ok()?.json()?;
    let groups = groups.as_array().cloned().unwrap_or_default();
    let found = groups.iter().find(|known| known["group_id"] == group);
    Ok(found.and_then(|group| group["leader"].as_u64()).unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_without_majority_is_reported_without_leader() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    create(&cluster).await?;
    load(&cluster, 0).await?;
    let group = cluster.region(TABLE).await?.group_id;
    // The owner survives: it believes to lead until it learns of another leader.
    let owner = cluster.owner(TABLE).await?;
    assert_ne!(shown_leader(&cluster, group).await?, 0);
    for index in (0..3).filter(|index| *index != owner) {
        cluster.data[index].kill().await?;
    }
    let problem =
        wait_for_kind(&cluster, "group_without_leader", |problem| problem["group_id"] == group)
            .await?;
    println!("{problem}");
    assert_eq!(shown_leader(&cluster, group).await?, 0);
    cluster.run(&["cluster", "health"]).await?.status(5)?.expect_stderr(&["problem"])?;
    let text = cluster.run(&["cluster", "status"]).await?.status(5)?;
    assert!(text.stdout.contains("group_without_leader for "), "{}", text.stdout);
    // A new meta leader comes to the same conclusion.
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    wait_for_kind(&cluster, "meta_member_silent", |problem| problem["node_id"] == leader + 1)
        .await?;
    wait_for_kind(&cluster, "group_without_leader", |problem| problem["group_id"] == group).await?;
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    cluster.run(&["cluster", "status"]).await?.ok()?;
    cluster.run(&["cluster", "health"]).await?.ok()?;
    assert_ne!(shown_leader(&cluster, group).await?, 0);
    assert_eq!(cluster.count(TABLE).await?, ROWS);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_node_is_reported_as_down() -> Result<()> {
    let cluster = Cluster::start().await?;
    let node = cluster.node_id(&cluster.data[0].spec).await?;
    cluster.data[0].signal(Signal::Stop).await?;
    let problem =
        wait_for_kind(&cluster, "node_down", |problem| problem["node_id"] == node).await?;
    println!("{problem}");
    cluster.data[0].signal(Signal::Continue).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

/// Starts a cluster with one data node that checks its files every second, with a flushed table.
async fn with_files() -> Result<(Cluster, u64, PathBuf)> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_CHECK_FILES_EVERY", "1s");
    // Reads must notice damage.
    let cluster = plan.env("TIDEWATER_OBJECT_CACHE", "0").start().await?;
    create(&cluster).await?;
    load(&cluster, 0).await?;
    cluster.flush(TABLE).await?.ok()?;
    let files = live_files(&cluster, TABLE).await?;
    let file = cluster.objects().join(files.first().expect("a flushed file"));
    let region = cluster.region(TABLE).await?.region_id;
    Ok((cluster, region, file))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_file_of_a_region_is_reported() -> Result<()> {
    let (cluster, region, file) = with_files().await?;
    let aside = cluster.directory().join("aside");
    rename(&file, &aside)?;
    // Without any read.
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let problem = wait_for_kind(&cluster, "region_damaged", |problem| {
        problem["region_id"] == region && problem["detail"].to_string().contains(&name)
    })
    .await?;
    println!("{problem}");
    assert_eq!(problem["table"], TABLE);
    rename(&aside, &file)?;
    cluster.wait_until_healthy().await?;
    assert_eq!(cluster.count(TABLE).await?, ROWS);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_file_of_a_region_is_reported() -> Result<()> {
    let (cluster, region, file) = with_files().await?;
    let intact = std::fs::read(&file).map_err(HarnessError::io("read a file"))?;
    let mut damaged = intact.clone();
    // Not the footer, which may be cached.
    for byte in &mut damaged[64..2_048] {
        *byte = !*byte;
    }
    std::fs::write(&file, &damaged).map_err(HarnessError::io("damage a file"))?;
    let scan = cluster.run(&["scan", TABLE, "--format", "csv", "--timeout", "10s"]).await?;
    assert_ne!(scan.status, Some(0), "{scan:?}");
    let problem =
        wait_for_kind(&cluster, "region_damaged", |problem| problem["region_id"] == region).await?;
    println!("{problem}");
    std::fs::write(&file, &intact).map_err(HarnessError::io("mend a file"))?;
    cluster.wait_until_healthy().await?;
    cluster.run(&["scan", TABLE, "--format", "csv"]).await?.ok()?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_flushes_are_reported_with_the_error() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    create(&cluster).await?;
    load(&cluster, 0).await?;
    cluster.flush(TABLE).await?.ok()?;
    load(&cluster, ROWS).await?;
    let region = cluster.region(TABLE).await?.region_id;
    // Tests may run as root: a directory without permissions would be writable.
    let objects = cluster.objects();
    let aside = cluster.directory().join("aside");
    rename(&objects, &aside)?;
    std::fs::write(&objects, "no directory").map_err(HarnessError::io("write a file"))?;
    let flush = cluster.flush(TABLE).await?;
    assert_ne!(flush.status, Some(0), "{flush:?}");
    let problem =
        wait_for_kind(&cluster, "flush_failing", |problem| problem["region_id"] == region).await?;
    println!("{problem}");
    let detail = problem["detail"].to_string();
    assert!(detail.contains("times in a row"), "{detail}");
    std::fs::remove_file(&objects).map_err(HarnessError::io("remove a file"))?;
    rename(&aside, &objects)?;
    cluster.wait_until_healthy().await?;
    assert_eq!(cluster.count(TABLE).await?, 2 * ROWS);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_below_the_bound_is_reported() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).prepare().await?;
    let spec = cluster.data[0].spec.clone();
    cluster.data[0].spec.env.push(("TIDEWATER_DISK_LOW".to_owned(), "1000TiB".to_owned()));
    cluster.start_all().await?;
    let node = cluster.node_id(&spec).await?;
    for kind in ["disk_low", "store_low"] {
        let problem = wait_for_kind(&cluster, kind, |problem| problem["node_id"] == node).await?;
        println!("{problem}");
    }
    cluster.data[0].terminate().await?;
    cluster.data[0].spec = spec;
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_answers_no_connections_is_reported() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).prepare().await?;
    let spec = cluster.data[0].spec.clone();
    // Nothing listens there, like behind a firewall. The node's own connection stays open.
    let address = cluster.spare_address()?.to_string();
    let mut args = spec.args.clone();
    let at = args.iter().position(|arg| arg == "--advertise").expect("an address") + 1;
    args[at] = address.clone();
    cluster.data[0].spec.args = args;
    cluster.start_all().await?;
    let is_named = |problem: &serde_json::Value| problem["detail"].to_string().contains(&address);
    let problem = wait_for_kind(&cluster, "node_unreachable", is_named).await?;
    println!("{problem}");
    cluster.data[0].terminate().await?;
    cluster.data[0].spec = spec;
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problems_are_counted_in_the_metrics_of_the_leader() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 3, 0).start().await?;
    let meta = cluster.meta[0].spec.listen;
    let counted = |count: u64| async move {
        let metrics = Metrics::fetch(meta).await.map_err(|error| error.to_string())?;
        match metrics.labelled("tidewater_problems", "kind", "node_down") {
            found if found == count && !metrics.is_empty() => Ok(()),
            found => Err(found.to_string()),
        }
    };
    wait::until("no problem is counted", SETTLED_WITHIN, || counted(0)).await?;
    cluster.data[2].signal(Signal::Stop).await?;
    wait::until("the problem is counted", SETTLED_WITHIN, || counted(1)).await?;
    cluster.data[2].signal(Signal::Continue).await?;
    wait::until("the problem has ended", SETTLED_WITHIN, || counted(0)).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
