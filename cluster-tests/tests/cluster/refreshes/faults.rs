//! Refreshes while processes are killed: in each phase, and between the chunks of a merge (F1, F2, F4).

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::{HarnessError, Result};

use super::mirror::{Mirror, TABLE};
use super::reader::Reader;
use super::versions::{
    Moment, NAME_BYTES, connect, rows_of, start_until, wait_until_published, write,
};
use crate::support::{setting, wait_for_level};

/// Process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    MetaLeader,
    /// Leader of the group of the first region.
    Owner,
}

const POINTS: [(Moment, Victim); 10] = [
    (Moment::Refreshing, Victim::Owner),
    (Moment::Refreshing, Victim::MetaLeader),
    (Moment::Merging, Victim::Owner),
    (Moment::Merging, Victim::MetaLeader),
    (Moment::BetweenChunks, Victim::Owner),
    (Moment::BetweenChunks, Victim::MetaLeader),
    (Moment::Publishing, Victim::MetaLeader),
    (Moment::Publishing, Victim::Owner),
    (Moment::Cleanup, Victim::Owner),
    (Moment::Cleanup, Victim::MetaLeader),
];
/// Refreshes until a moment is seen that may pass between two looks.
const ATTEMPTS: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_show_no_mixture_of_refreshes() -> Result<()> {
    let mut cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    let mut mirror = Mirror::create(&cluster, 2).await?;
    let client = connect(&cluster).await?;
    let reader = Reader::start(client.clone(), rows_of);
    let mut version = 0;
    for round in 0..setting("TIDEWATER_REFRESH_ROUNDS", POINTS.len()) {
        let (moment, victim) = POINTS[round % POINTS.len()];
        let last = version + ATTEMPTS;
        let generation = loop {
            version += 1;
            write(&mut mirror, version)?;
            if let Some(generation) = start_until(&client, moment).await? {
                break generation;
            }
            if version == last {
                let text = format!("{moment:?} was not seen in {ATTEMPTS} refreshes");
                return Err(HarnessError::violated(text));
            }
        };
        kill(&mut cluster, victim).await?;
        let published = wait_until_published(&client, version).await?;
        if moment.is_after_load() && published != generation {
            let text = format!("{moment:?}: {published:?} was published, not {generation:?}");
            return Err(HarnessError::violated(text));
        }
        mirror.check(&cluster).await?;
        println!("version {version}: {victim:?} killed while {moment:?}");
    }
    let scans = reader.stop().await?;
    println!("{scans} scans, each of one version");
    if scans == 0 {
        return Err(HarnessError::violated("the reader has read nothing"));
    }
    cluster.finish().await
}

/// Kills a process, and starts it again.
async fn kill(cluster: &mut Cluster, victim: Victim) -> Result<()> {
    let node = match victim {
        Victim::MetaLeader => {
            let (leader, _) = cluster.meta_leader().await?;
            &mut cluster.meta[leader]
        }
        Victim::Owner => {
            let owner = cluster.owner(TABLE).await?;
            &mut cluster.data[owner]
        }
    };
    node.kill().await?;
    node.start().await
}

/// Rows that all data nodes have compared.
async fn compared_rows(cluster: &Cluster) -> Result<u64> {
    let mut rows = 0;
    for node in &cluster.data {
        let metrics = Metrics::fetch(node.spec.listen).await?;
        rows += metrics.sum("tidewater_merge_rows_compared_total");
    }
    Ok(rows)
}

/// A frozen owner loses its merge as a killed one does, and can be asked for its work later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_owner_repeats_at_most_one_chunk_per_part() -> Result<()> {
    /// Parts of a region, and the rows of a chunk: its bytes, 1 MiB, have at least those of the names.
    const REPEATED: u64 = 4 * ((1 << 20) / NAME_BYTES as u64 + 1);
    let cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    let mut mirror = Mirror::create(&cluster, 1).await?;
    let client = connect(&cluster).await?;
    write(&mut mirror, 1)?;
    mirror.refresh(&cluster, serde_json::json!({"inserted": rows_of(1)})).await?;
    let mut changes = 0;
    for version in 2..=4 {
        write(&mut mirror, version)?;
        let before = compared_rows(&cluster).await?;
        if start_until(&client, Moment::BetweenChunks).await?.is_none() {
            return Err(HarnessError::violated("no moment between two chunks was seen"));
        }
        let owner = cluster.owner(TABLE).await?;
        cluster.data[owner].signal(Signal::Stop).await?;
        wait_until_published(&client, version).await?;
        cluster.data[owner].signal(Signal::Continue).await?;
        cluster.wait_until_healthy().await?;
        mirror.check(&cluster).await?;
        changes += u64::from(cluster.owner(TABLE).await? != owner);
        // Rows of either side are compared once: those that only one side has count too.
        let rows = rows_of(version).max(rows_of(version - 1));
        let compared = compared_rows(&cluster).await? - before;
        println!("version {version}: {compared} rows compared, {rows} at least");
        if !(rows..=rows + REPEATED).contains(&compared) {
            let text =
                format!("{compared} rows compared, between {rows} and {REPEATED} more expected");
            return Err(HarnessError::violated(text));
        }
    }
    if changes == 0 {
        return Err(HarnessError::violated("the owner has never changed"));
    }
    cluster.finish().await
}
