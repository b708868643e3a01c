//! A leader that is frozen with SIGSTOP and continues with outdated leadership.

use std::time::Duration;

use futures::future::join_all;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::direct::NodeClient;
use tidewater_cluster_tests::inbox::Inbox;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::support::conclude;

/// Longer than any lease.
const FROZEN: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
const READS: usize = 24;
/// Lower bound of a read on the wire: two frames (9 bytes each), the message and its prefix (5).
const READ_BYTES: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn woken_leader_serves_no_stale_read() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let rows = LoadOptions::default().rows.unsigned_abs();
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let old = cluster.owner(LOG_TABLE).await?;
    let region = cluster.region(LOG_TABLE).await?;
    // Connect before the freeze, so that reads arrive in the socket of the frozen node.
    let inbox = Inbox::open(cluster.data[old].spec.listen).await?;
    let frozen_node = NodeClient::new(inbox.address(), ANSWERED_WITHIN)?;
    frozen_node.count(region).await.map_err(HarnessError::refused("count at the leader"))?;

    cluster.data[old].signal(Signal::Stop).await?;
    let frozen = Instant::now();
    cluster.owner_other_than(LOG_TABLE, Some(old)).await?;
    load.progress(40).await?;
    tokio::time::sleep_until(frozen + FROZEN).await;

    let known = load.acknowledged() * rows;
    let reads = (0..READS).map(|_| frozen_node.count(region));
    let before = inbox.unread()?;
    let wake = async {
        // The reads must arrive before the node continues, so that it processes them first.
        wait::until("the reads have arrived", ANSWERED_WITHIN, || async {
            let unread = inbox.unread().map_err(|error| error.to_string())?;
            let arrived = unread.saturating_sub(before);
            if arrived >= READS as u64 * READ_BYTES {
                Ok(())
            } else {
                Err(format!("{arrived} bytes"))
            }
        })
        .await?;
        cluster.data[old].signal(Signal::Continue).await
    };
    let (answers, woken) = tokio::join!(join_all(reads), wake);
    woken?;
    // At least one read must be answered: reads that all hang would prove nothing.
    let mut answered = 0;
    for answer in answers {
        match answer.map_err(Refusal::from) {
            Ok(count) if count < known => {
                return Err(HarnessError::violated(format!(
                    "a woken leader counted {count} rows; {known} had been acknowledged before"
                )));
            }
            Ok(_) => answered += 1,
            Err(refusal) if refusal.reason == Reason::NotLeader => answered += 1,
            Err(refusal) => println!("a read at the woken leader: {refusal}"),
        }
    }
    if answered == 0 {
        return Err(HarnessError::violated("the woken leader answered none of the reads"));
    }
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
