use std::collections::BTreeSet;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::*;
use crate::fake::{Answer, FakeCluster, State, added_values, altered_schema, keys, rows};

#[tokio::test]
async fn batch_becomes_one_file_per_region_without_duplicate_keys() {
    let cluster = FakeCluster::start(&[10], 2).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    let loaded = loader.write(rows([12, 3, 25, 3, 12, 1])).await.unwrap();
    assert_eq!(loaded, LoadedBatch { rows: 4, files: 2 });
    loader.publish().await.unwrap();
    let state = cluster.state.lock();
    let mut files: Vec<_> = state.files.values().cloned().collect();
    files.sort();
    assert_eq!(files, [vec![1, 3], vec![12, 25]]);
    assert!(state.adoptions.iter().all(|adoption| !adoption.stage));
    let areas = [&state.adoptions[0].area_id, &state.adoptions[1].area_id];
    assert_ne!(areas[0], areas[1]);
    assert!(state.load_begins.is_empty() && state.load_ends.is_empty());
}

#[tokio::test]
async fn repeated_adoption_names_the_same_staging_area_and_files() {
    let cluster = FakeCluster::start(&[], 2).await;
    let client = cluster.client().await;
    cluster.state.lock().answers = vec![Answer::Lose].into();
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
            state.load_begins.clear();
            state.load_ends.clear();
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
        let id: Uuid = state.load_begins[0].request_id.parse().unwrap();
        assert_eq!(state.adoptions.len(), 3);
        assert!(
            state
                .adoptions
                .iter()
                .all(|adoption| adoption.stage && *adoption.area_id == *id.as_bytes())
        );
        let [end] = &state.load_ends[..] else { panic!("{:?}", state.load_ends) };
        assert_eq!((end.request_id.parse(), end.publish), (Ok(id), publish));
    }
}

#[tokio::test]
async fn loader_returns_errors_with_their_reason() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    let bad = loader.write(keys(&[1])).await.unwrap_err();
    assert!(matches!(bad, ClientError::BadInput(_)), "{bad}");
    for reason in [Reason::InvalidArgument, Reason::TableBusy] {
        let refusal = Refusal::new(reason, "as the test says");
        cluster.state.lock().answers = vec![Answer::Refuse(refusal)].into();
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

#[tokio::test]
async fn files_that_an_owner_abandoned_are_written_again() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    let abandoned = || Answer::Refuse(Refusal::new(Reason::LoadEnded, "the area was abandoned"));
    cluster.state.lock().answers = vec![abandoned(), abandoned()].into();
    let loaded = loader.write(rows([1])).await.unwrap();
    assert_eq!(loaded.rows, 1);
    cluster.state.lock().answers = std::iter::repeat_with(abandoned).take(20).collect();
    let refused = loader.write(rows([1])).await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().reason, Reason::LoadEnded, "{refused}");
    assert_eq!(cluster.state.lock().answers.len(), 20 - 9);
}

fn altered() -> Answer {
    Answer::Refuse(Refusal::new(Reason::SchemaVersionStale, "the table was altered"))
}

/// Returns the values of the added column in the last file.
fn last_defaults(cluster: &FakeCluster) -> Vec<i64> {
    let state = cluster.state.lock();
    let file = state.files_written.last().unwrap();
    added_values(file.schema_version, &file.rows)
}

#[tokio::test]
async fn loader_continues_after_an_alter() {
    let cluster = FakeCluster::start(&[10], 1).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    let earlier = loader.table().clone();
    loader.write(rows([1, 11])).await.unwrap();
    cluster.change(alter);
    let loaded = loader.write(rows([2, 12])).await.unwrap();
    assert_eq!(loaded, LoadedBatch { rows: 2, files: 2 });
    assert_eq!(last_defaults(&cluster), [7]);
    client.table("t").await.unwrap();
    let later = client.bulk_loader_for(earlier).write(rows([3])).await.unwrap();
    assert_eq!(later, LoadedBatch { rows: 1, files: 1 });
    let versions: Vec<u32> =
        cluster.state.lock().adoptions.iter().map(|adoption| adoption.schema_version).collect();
    assert_eq!(versions, [1, 1, 2, 2, 2]);
}

/// Loads rows 1 and 12 into one region. When `calls` calls have arrived, the cluster changes.
async fn load_during(
    change: impl FnOnce(&mut State),
    answers: Vec<Answer>,
    calls: usize,
) -> (FakeCluster, Result<LoadedBatch, ClientError>) {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let loader = client.bulk_loader("t").await.unwrap();
    cluster.state.lock().answers = answers.into();
    let loading = tokio::spawn(async move { loader.write(rows([1, 12])).await });
    let arrived = async {
        while cluster.state.lock().adoptions.len() < calls {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    cluster.change(change);
    let result = loading.await.unwrap();
    (cluster, result)
}

fn alter(state: &mut State) {
    state.schema = altered_schema();
    state.publish_schema();
}

/// Splits the only region between the rows.
fn split() -> Answer {
    Answer::Split { region: 100, at: 10, children: (71, 72) }
}

#[tokio::test]
async fn files_that_an_alter_overtakes_are_written_again() {
    let (cluster, result) = load_during(alter, vec![altered()], 1).await;
    assert_eq!(result.unwrap(), LoadedBatch { rows: 2, files: 1 });
    assert_eq!(last_defaults(&cluster), [7, 7]);
    let state = cluster.state.lock();
    let [first, second] = &state.adoptions[..] else { panic!("{:?}", state.adoptions) };
    assert_eq!((first.schema_version, second.schema_version), (1, 2));
    assert_ne!(first.area_id, second.area_id);
    assert_ne!(first.file_ids, second.file_ids);
}

#[tokio::test]
async fn files_that_may_be_adopted_are_not_rewritten() {
    // The rows of an append-only table would appear twice.
    let (cluster, result) = load_during(alter, vec![Answer::Lose, altered()], 2).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(cluster.state.lock().files_written.len(), 1);
}

#[tokio::test]
async fn files_that_a_split_overtakes_are_written_again() {
    let (cluster, result) = load_during(State::publish_routes, vec![split()], 1).await;
    assert_eq!(result.unwrap(), LoadedBatch { rows: 2, files: 2 });
    let state = cluster.state.lock();
    let last_two = state.adoptions.iter().rev().take(2);
    let regions: BTreeSet<u64> = last_two.map(|adoption| adoption.region_id).collect();
    assert_eq!(regions, [71, 72].into());
}

#[tokio::test]
async fn files_that_children_may_have_are_not_rewritten() {
    let (cluster, result) =
        load_during(State::publish_routes, vec![Answer::Lose, split()], 2).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(cluster.state.lock().files_written.len(), 1);
}

#[tokio::test]
async fn load_without_announced_alter_ends_at_deadline() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.deadline = Duration::from_millis(200);
    let client = Client::connect(options).await.unwrap();
    let loader = client.bulk_loader("t").await.unwrap();
    cluster.state.lock().schema = altered_schema();
    let refused = loader.write(rows([1])).await.unwrap_err();
    let stale = Reason::SchemaVersionStale;
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.reason == stale),
        "{refused}"
    );
    assert!(cluster.state.lock().adoptions.is_empty());
}
