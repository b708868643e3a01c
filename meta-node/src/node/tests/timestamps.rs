//! Timestamps across leaders, and across a restart of the whole cluster.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::{Instant, sleep};

use super::cluster::{LIMIT, MetaCluster};
use crate::Bootstrap;

/// Asks for timestamps until a leader gives them; returns the first and the one after the last.
async fn next(cluster: &MetaCluster, count: u32) -> (u64, u64) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let leader = cluster.leader().await;
        let request = v1::NextTimestampsRequest { count, ..Default::default() };
        match cluster.meta(leader).await.next_timestamps(request).await {
            Ok(given) => {
                let given = given.into_inner();
                return (given.first, given.first + u64::from(given.count));
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

// R13.
#[tokio::test(flavor = "multi_thread")]
async fn timestamps_increase_across_leaders_and_restarts() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let mut end = 0;
    for round in 0..3 {
        for count in [0, 1, 100_000] {
            let (first, next_end) = next(&cluster, count).await;
            assert!(first >= end && next_end - first == u64::from(count.max(1)), "round {round}");
            end = next_end;
        }
        let leader = cluster.leader().await;
        let stopped = if round == 1 { vec![1, 2, 3] } else { vec![leader] };
        for id in &stopped {
            cluster.nodes.remove(id).unwrap().kill().await;
        }
        for id in stopped {
            cluster.start(id, Bootstrap::Never).await;
        }
    }
    let leader = cluster.leader().await;
    for (request, reason) in [
        (
            v1::NextTimestampsRequest { count: 1_000_001, ..Default::default() },
            Reason::InvalidArgument,
        ),
        (
            v1::NextTimestampsRequest { cluster_id: "another".to_owned(), count: 1 },
            Reason::WrongCluster,
        ),
    ] {
        let refused = cluster.meta(leader).await.next_timestamps(request).await.unwrap_err();
        assert_eq!(Refusal::from_status(&refused).reason, reason);
    }
}
