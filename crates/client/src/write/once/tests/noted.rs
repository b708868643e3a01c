//! Notes whose rows are not known any more.

use tidewater_proto::v1::WriteRequest;

use super::*;

/// Writes with rows that the cluster has received.
fn with_rows(cluster: &FakeCluster) -> Vec<WriteRequest> {
    let state = cluster.state.lock();
    state.writes.iter().filter(|write| write.row_count > 0).cloned().collect()
}

/// Fences the write of a note in another process, which has other rows.
async fn fence(cluster: &FakeCluster, note: &[u8]) {
    let (client, writer) = process(cluster, 1_000).await;
    let error = writer.resume(table(&client).await, note, &rows(1..=2)).unwrap_err();
    let ResumeError::OtherRows { write, .. } = error else { panic!("{error}") };
    writer.fence_noted(&write).await.unwrap();
}

#[tokio::test]
async fn fenced_write_has_no_late_effect_in_any_region() {
    for answer in [Answer::DoAndLose, Answer::Lose] {
        let cluster = FakeCluster::start(&[2], 1).await;
        let note = ended_process(&cluster, answer).await;
        let late = with_rows(&cluster);
        assert_eq!(late.len(), 2);
        let applied = cluster.state.lock().ids();
        // The second process ended before it has noted the fence.
        for _ in 0..2 {
            fence(&cluster, &note).await;
            for write in &late {
                let refusal = cluster.state.lock().apply(write).unwrap_err();
                assert_eq!(refusal.reason, Reason::SerialOutOfOrder);
            }
        }
        assert_eq!(cluster.state.lock().ids(), applied);
    }
}

#[tokio::test]
async fn fence_of_a_write_continues_after_a_lost_answer() {
    for lost in [Answer::DoAndLose, Answer::Lose] {
        let cluster = FakeCluster::start(&[], 1).await;
        let note = ended_process(&cluster, Answer::DoAndLose).await;
        let late = with_rows(&cluster);
        // Of the write without rows, and of the one after it.
        cluster.state.lock().answers = [lost.clone(), Answer::Normal, lost, Answer::Normal].into();
        fence(&cluster, &note).await;
        assert!(cluster.state.lock().answers.is_empty());
        let refusal = cluster.state.lock().apply(&late[0]).unwrap_err();
        assert_eq!(refusal.reason, Reason::SerialOutOfOrder);
        assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn fence_covers_the_children_of_a_split_region() {
    let cluster = FakeCluster::start(&[], 1).await;
    let note = ended_process(&cluster, Answer::Lose).await;
    let late = with_rows(&cluster);
    cluster.change(|state| {
        state.split(100, 2, (201, 202));
        state.publish_routes();
    });
    fence(&cluster, &note).await;
    for child in [201, 202] {
        let mut part = WriteRequest { region_id: child, row_count: 0, ..late[0].clone() };
        part.rows.clear();
        let refusal = cluster.state.lock().apply(&part).unwrap_err();
        assert_eq!(refusal.reason, Reason::SerialOutOfOrder, "region {child}");
    }
}

#[tokio::test]
async fn fence_opens_a_forgotten_producer_again() {
    let cluster = FakeCluster::start(&[2], 1).await;
    let note = ended_process(&cluster, Answer::DoAndLose).await;
    let late = with_rows(&cluster);
    let applied = cluster.state.lock().ids();
    cluster.state.lock().forget_producers();
    for _ in 0..2 {
        fence(&cluster, &note).await;
        for write in &late {
            let refusal = cluster.state.lock().apply(write).unwrap_err();
            assert_eq!(refusal.reason, Reason::ProducerForgotten);
        }
    }
    assert_eq!(cluster.state.lock().ids(), applied);
    let state = cluster.state.lock();
    assert_eq!(state.writes.iter().filter(|write| write.serial == 1).count(), 6);
}

#[tokio::test]
async fn stream_of_a_fenced_write_is_not_continued() {
    let cluster = FakeCluster::start(&[], 1).await;
    let process = process(&cluster, 1_000).await;
    let write = open(&process, rows(1..=3)).await;
    let note = write.note();
    assert!(matches!(process.1.send(write).await.unwrap(), OnceOutcome::Written(_)));
    let current = table(&process.0).await;
    let error = process.1.resume(current, &note, &rows([1])).unwrap_err();
    let ResumeError::OtherRows { write, .. } = error else { panic!("{error}") };
    process.1.fence_noted(&write).await.unwrap();
    let write = open(&process, rows(4..=5)).await;
    assert!(matches!(process.1.send(write).await.unwrap(), OnceOutcome::Written(_)));
    let writes = with_rows(&cluster);
    assert_ne!(writes[0].producer_id, writes[1].producer_id);
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3, 4, 5]);
}
