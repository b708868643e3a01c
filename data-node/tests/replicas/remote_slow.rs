//! Tests of slow compactions on compactors that record no events.

use std::sync::Arc;

use tidewater_events::Value;
use tidewater_events::testing::CollectingRecorder;
use tidewater_proto::v1::Reason;

use crate::fake_compactor::FakeReply;
use crate::remote_cluster::{RemoteCompactionCluster, flush_rows, no_fallback};

/// Returns the compactors of the slow jobs that a node has recorded.
fn slow_compactors(recorder: &CollectingRecorder) -> Vec<Value> {
    let events = recorder.events().into_iter();
    let slow = events.filter(|event| event.event_type == "slow_operation");
    let nodes = slow.flat_map(|event| event.extra);
    nodes.filter(|(column, _)| column.name == "node_id").map(|(_, node)| node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_records_slow_jobs_of_silent_compactors() {
    let recorder = Arc::new(CollectingRecorder::default());
    let cluster = RemoteCompactionCluster::start_recording(no_fallback(), recorder.clone()).await;
    let first = Value::UInt64(201);
    // Without a limit: the compactor records its jobs.
    assert_eq!(cluster.compact().await.unwrap().node_id, 201);
    assert_eq!(slow_compactors(&recorder), []);

    *cluster.first.slow_operation_ms.lock() = Some(0);
    flush_rows(&cluster.node, 5..6).await;
    assert_eq!(cluster.compact().await.unwrap().node_id, 201);
    assert_eq!(slow_compactors(&recorder), std::slice::from_ref(&first));

    // No job has begun.
    cluster.first.script([FakeReply::RefusePlan(Reason::Overloaded)]);
    flush_rows(&cluster.node, 6..7).await;
    assert_eq!(cluster.compact().await.unwrap().node_id, 202);
    assert_eq!(slow_compactors(&recorder), std::slice::from_ref(&first));

    // A failed attempt is a job on its compactor, too.
    cluster.first.script([FakeReply::Fail(Reason::Corrupt, false)]);
    flush_rows(&cluster.node, 7..8).await;
    assert_eq!(cluster.compact().await.unwrap().node_id, 202);
    assert_eq!(slow_compactors(&recorder), [first.clone(), first.clone()]);

    *cluster.first.slow_operation_ms.lock() = Some(3_600_000);
    flush_rows(&cluster.node, 8..9).await;
    assert_eq!(cluster.compact().await.unwrap().node_id, 201);
    assert_eq!(slow_compactors(&recorder), [first.clone(), first]);
    cluster.node.stop().await;
}
