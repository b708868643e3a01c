use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::*;
use crate::fake::{FakeCluster, FakeReply, keys, rows};

#[tokio::test]
async fn batch_becomes_one_file_per_region_without_duplicates() {
    let cluster = FakeCluster::start(&[10], 2).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    let loaded = loader.write(rows([12, 3, 25, 3, 12, 1])).await.unwrap();
    assert_eq!(loaded, BulkLoadReport { rows: 4, files: 2 });
    loader.publish().await.unwrap();
    let state = cluster.state.lock();
    let mut files: Vec<_> = state.files.values().cloned().collect();
    files.sort();
    assert_eq!(files, [vec![1, 3], vec![12, 25]]);
    assert!(state.adoptions.iter().all(|adoption| !adoption.stage));
    let areas = [&state.adoptions[0].area_id, &state.adoptions[1].area_id];
    assert_ne!(areas[0], areas[1]);
    assert!(state.loads.is_empty() && state.ends.is_empty());
}

#[tokio::test]
async fn retry_names_the_same_area_and_files() {
    let cluster = FakeCluster::start(&[], 2).await;
    let client = cluster.client().await;
    cluster.state.lock().replies = vec![FakeReply::Lose].into();
    let loader = client.bulk_loader("t").await.unwrap();
    loader.write(rows([1])).await.unwrap();
    let state = cluster.state.lock();
    assert_eq!(state.adoptions.len(), 2);
    assert_eq!(state.adoptions[0], state.adoptions[1]);
    assert_eq!(state.files.len(), 1);
}

#[tokio::test]
async fn atomic_load_uses_one_staging_area_and_ends_once() {
    let cluster = FakeCluster::start(&[10], 1).await;
    let client = cluster.client().await;
    for publish in [true, false] {
        cluster.change(|state| {
            state.adoptions.clear();
            state.loads.clear();
            state.ends.clear();
        });
        let loader = client.atomic_loader("t").await.unwrap();
        loader.write(rows([1, 11])).await.unwrap();
        loader.write(rows([2])).await.unwrap();
        if publish {
            loader.publish().await.unwrap();
        } else {
            loader.abandon().await.unwrap();
        }
        let state = cluster.state.lock();
        let id: Uuid = state.loads[0].request_id.parse().unwrap();
        assert_eq!(state.adoptions.len(), 3);
        let staged = |adoption: &v1::AdoptFilesRequest| {
            adoption.stage && *adoption.area_id == *id.as_bytes()
        };
        assert!(state.adoptions.iter().all(staged));
        let [end] = &state.ends[..] else { panic!("{:?}", state.ends) };
        assert_eq!((end.request_id.parse(), end.publish), (Ok(id), publish));
    }
}

#[tokio::test]
async fn bulk_load_errors_carry_their_reason() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    let bad = loader.write(keys(&[1])).await.unwrap_err();
    assert!(matches!(bad, ClientError::BadInput(_)), "{bad}");
    for reason in [Reason::InvalidArgument, Reason::SchemaVersionStale] {
        let refusal = Refusal::new(reason, "scripted");
        cluster.state.lock().replies = vec![FakeReply::Refuse(refusal)].into();
        let refused = loader.write(rows([1])).await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Refused { refusal, .. } if refusal.reason == reason),
            "{refused}"
        );
    }
    let busy = Refusal::new(Reason::TableBusy, "being altered");
    cluster.state.lock().admin_refusals = vec![busy].into();
    let refused = client.atomic_loader("t").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused}");
    let missing = client.bulk_loader("nowhere").await.unwrap_err();
    assert!(matches!(missing, ClientError::TableNotFound(_)), "{missing}");
}
