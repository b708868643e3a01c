//! SIGSTOP: a leader that sleeps, and wakes believing that it leads.

use std::time::Duration;

use futures::future::join_all;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::direct::Direct;
use tidewater_cluster_tests::inbox::Inbox;
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::support::conclude;

/// Longer than any lease.
const FROZEN: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
const READS: usize = 24;
/// Less than any of them has on the wire: two frames (9 bytes each), the message and its prefix (5).
const READ_BYTES: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_serves_no_stale_read() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.create_log_table().await?;
    let rows = Load::default().rows.unsigned_abs();
    let load = Workload::start(&cluster, Load::default()).await?;
    let (old, region) = (cluster.owner(LOG_TABLE).await?, cluster.region(LOG_TABLE).await?);
    // The connection must stand before the freeze: reads are to lie in the sleeper's inbox.
    let inbox = Inbox::of(cluster.data[old].spec.listen).await?;
    let sleeper = Direct::to(inbox.address(), ANSWERED_WITHIN)?;
    sleeper.count(region).await.map_err(HarnessError::refused("count at the leader"))?;

    cluster.data[old].signal(Signal::Stop).await?;
    let frozen = Instant::now();
    cluster.owner_other_than(LOG_TABLE, Some(old)).await?;
    load.progress(40).await?;
    tokio::time::sleep_until(frozen + FROZEN).await;

    let known = load.acknowledged() * rows;
    let reads = (0..READS).map(|_| sleeper.count(region));
    let before = inbox.unread()?;
    let wake = async {
        // They must lie before it when it wakes, so that it sees them first.
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
    // It must have said something: reads that all hang would show nothing.
    let mut said = 0;
    for answer in answers {
        match answer.map_err(Refusal::from) {
            Ok(count) if count < known => {
                return Err(HarnessError::violated(format!(
                    "a woken leader counted {count} rows; {known} had been acknowledged before"
                )));
            }
            Ok(_) => said += 1,
            Err(refusal) if refusal.reason == Reason::NotLeader => said += 1,
            Err(refusal) => println!("a read at the woken leader: {refusal}"),
        }
    }
    if said == 0 {
        return Err(HarnessError::violated("the woken leader answered none of the reads"));
    }
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
