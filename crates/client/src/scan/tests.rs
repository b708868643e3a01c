use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use tidewater_common::ids::{Epoch, NodeId};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::{Leader, Refusal};
use tidewater_proto::v1::Reason;

use super::ScanSpec;
use super::driver::READ_AHEAD_SILENCE;
use crate::client::Client;
use crate::error::ClientError;
use crate::fake::{FakeCluster, ScanAnswer, State, keys, rows};
use crate::options::WriterOptions;

/// Rows 0 to 29 in three regions of ten.
async fn filled() -> (FakeCluster, Client) {
    let cluster = FakeCluster::start(&[10, 20], 2).await;
    let client = cluster.client().await;
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    writer.put_rows(rows(0..30)).await.unwrap();
    (cluster, client)
}

fn ids(batches: &[RecordBatch]) -> Vec<i64> {
    batches
        .iter()
        .flat_map(|batch| {
            let column = batch.column_by_name("id").unwrap();
            column.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
        })
        .collect()
}

async fn scan(client: &Client, spec: ScanSpec) -> Result<Vec<i64>, ClientError> {
    Ok(ids(&client.scan(spec).await?.collect().await?))
}

#[tokio::test]
async fn scan_reads_all_regions_in_key_order() {
    let (_cluster, client) = filled().await;
    let all: Vec<i64> = (0..30).collect();
    assert_eq!(scan(&client, ScanSpec::all("t")).await.unwrap(), all);
    assert_eq!(client.count(ScanSpec::all("t")).await.unwrap(), 30);
}

#[tokio::test]
async fn repeated_column_is_rejected_before_the_call() {
    let (_cluster, client) = filled().await;
    let columns = Some(vec!["id".to_owned(), "id".to_owned()]);
    let error = scan(&client, ScanSpec { columns, ..ScanSpec::all("t") }).await.unwrap_err();
    assert!(matches!(error, ClientError::BadInput(_)), "{error}");
    assert!(error.to_string().contains("\"id\" is named twice"), "{error}");
}

#[tokio::test]
async fn count_ends_at_its_deadline() {
    let (cluster, _) = filled().await;
    let mut options = cluster.options();
    options.deadline = Duration::from_millis(300);
    let client = Client::connect(options).await.unwrap();
    cluster.state.lock().scan_answers = [ScanAnswer::Freeze].into();
    let counting = tokio::time::timeout(Duration::from_secs(10), client.count(ScanSpec::all("t")));
    let error = counting.await.expect("the count ignores its deadline").unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert!(!error.maybe_done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_of_messages_without_rows_ends_at_its_deadline() {
    let (cluster, _) = filled().await;
    let mut options = cluster.options();
    options.deadline = Duration::from_millis(500);
    let client = Client::connect(options).await.unwrap();
    cluster.state.lock().scan_answers = vec![ScanAnswer::EmptyForEver; 100].into();
    let scanning = tokio::time::timeout(Duration::from_secs(20), scan(&client, ScanSpec::all("t")));
    let error = scanning.await.expect("the scan ignores its deadline").unwrap_err();
    assert!(matches!(error, ClientError::RetriesExhausted { .. }), "{error}");
}

#[tokio::test]
async fn scan_with_unusable_leader_address_ends_at_its_deadline() {
    let (cluster, _) = filled().await;
    let mut options = cluster.options();
    options.deadline = Duration::from_secs(4);
    let client = Client::connect(options).await.unwrap();
    let leader = Leader { node_id: NodeId(9), address: "no address at all".to_owned() };
    let refusal = Refusal::new(Reason::NotLeader, "elsewhere").leader(Some(leader));
    cluster.state.lock().scan_answers = vec![ScanAnswer::Refuse(refusal); 1_000].into();
    let started = std::time::Instant::now();
    let error = scan(&client, ScanSpec::all("t")).await.unwrap_err();
    let ClientError::RetriesExhausted { cause, .. } = error else { panic!("{error}") };
    assert_ne!(cause.reason, Reason::InvalidArgument, "{cause}");
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(6), "{elapsed:?} with a deadline of 4 s");
}

#[tokio::test]
async fn range_scan_reads_only_overlapping_regions() {
    let (cluster, client) = filled().await;
    let key = |id| crate::fake::table_info().codec.row_key(keys(&[id]).columns(), 0).unwrap();
    let range = KeyRange::new(key(12), Some(key(22)));
    let spec = ScanSpec { range, ..ScanSpec::all("t") };
    assert_eq!(scan(&client, spec.clone()).await.unwrap(), (12..22).collect::<Vec<_>>());
    assert_eq!(client.count(spec).await.unwrap(), 10);
    assert!(cluster.state.lock().scans.iter().all(|scan| scan.region_id > 100));
}

#[tokio::test]
async fn row_limit_ends_the_scan() {
    let (cluster, client) = filled().await;
    for (limit, expected) in [(0, 0), (4, 4), (10, 10), (13, 13), (99, 30)] {
        let spec = ScanSpec { limit: Some(limit), ..ScanSpec::all("t") };
        let found = scan(&client, spec.clone()).await.unwrap();
        assert_eq!(found, (0..expected).collect::<Vec<_>>(), "limit {limit}");
        assert_eq!(client.count(spec).await.unwrap(), expected as u64);
    }
    cluster.state.lock().scans.clear();
    let spec = ScanSpec { limit: Some(4), ..ScanSpec::all("t") };
    scan(&client, spec).await.unwrap();
    assert_eq!(cluster.state.lock().scans.len(), 1);
}

#[tokio::test]
async fn scan_returns_columns_in_requested_order() {
    let (_cluster, client) = filled().await;
    let columns = Some(vec!["v".to_owned(), "id".to_owned()]);
    let stream = client.scan(ScanSpec { columns, ..ScanSpec::all("t") }).await.unwrap();
    assert_eq!(stream.schema().field(0).name(), "v");
    assert_eq!(ids(&stream.collect().await.unwrap()).len(), 30);
    let columns = Some(vec!["nope".to_owned()]);
    let error = client.scan(ScanSpec { columns, ..ScanSpec::all("t") }).await.unwrap_err();
    assert!(error.to_string().contains("its columns are id, v"), "{error}");
    let error = client.scan(ScanSpec::all("nope")).await.unwrap_err();
    assert!(matches!(error, ClientError::TableNotFound(_)), "{error}");
}

#[tokio::test]
async fn region_read_ahead_for_too_long_is_read_again() {
    let (cluster, _) = filled().await;
    for (life, of_second) in [(Duration::from_secs(60), 1), (Duration::from_millis(100), 2)] {
        let mut options = cluster.options();
        options.scan_read_ahead = life;
        let client = Client::connect(options).await.unwrap();
        cluster.state.lock().scans.clear();
        let stream = client.scan(ScanSpec::all("t")).await.unwrap();
        // The caller takes nothing while the second region is open.
        let second = |state: &State| state.scans.iter().any(|scan| scan.region_id == 101);
        while !second(&cluster.state.lock()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if of_second > 1 {
            tokio::time::sleep(life + Duration::from_millis(50)).await;
        }
        assert_eq!(ids(&stream.collect().await.unwrap()), (0..30).collect::<Vec<_>>());
        let opened = cluster.state.lock().scans.iter().filter(|scan| scan.region_id == 101).count();
        assert_eq!(opened, of_second, "{life:?}");
    }
}

// The next region may hold the memory for which the current one waits.
#[tokio::test]
async fn region_read_ahead_closes_while_the_current_is_silent() {
    let (cluster, client) = filled().await;
    let pause = 3 * READ_AHEAD_SILENCE;
    cluster.state.lock().scan_answers = [ScanAnswer::Pause(pause)].into();
    let all: Vec<i64> = (0..30).collect();
    assert_eq!(scan(&client, ScanSpec::all("t")).await.unwrap(), all);
    assert_eq!(cluster.state.lock().scans.len(), 4, "one of three regions is read again");
}

#[tokio::test]
async fn stream_cut_before_its_first_row_is_reopened() {
    let (cluster, client) = filled().await;
    cluster.state.lock().scan_answers =
        [ScanAnswer::CutAfter(0), ScanAnswer::CutAfter(0), ScanAnswer::CutAfter(0)].into();
    assert_eq!(scan(&client, ScanSpec::all("t")).await.unwrap().len(), 30);
}

#[tokio::test]
async fn stream_cut_after_a_row_fails_the_scan() {
    for batches in 1..=4 {
        let (cluster, client) = filled().await;
        // Ten rows take four messages; the end marker is in the fifth.
        cluster.state.lock().scan_answers = [ScanAnswer::CutAfter(batches)].into();
        let error =
            scan(&client, ScanSpec { limit: Some(1_000), ..ScanSpec::all("t") }).await.unwrap_err();
        let ClientError::ScanInterrupted { rows, .. } = error else { panic!("{error}") };
        assert_eq!(rows, (batches as u64 * 3).min(10));
    }
}

#[tokio::test]
async fn region_count_is_repeated_after_a_cut_stream() {
    let (cluster, client) = filled().await;
    cluster.state.lock().scan_answers = vec![ScanAnswer::CutAfter(0); 5].into();
    assert_eq!(client.count(ScanSpec::all("t")).await.unwrap(), 30);
}

#[tokio::test]
async fn scan_retries_transient_errors_and_returns_permanent_ones() {
    let (cluster, client) = filled().await;
    let refuse = |reason| ScanAnswer::Refuse(Refusal::new(reason, "as the test says"));
    cluster.state.lock().scan_answers =
        [refuse(Reason::Overloaded), refuse(Reason::RegionLoading), refuse(Reason::Unavailable)]
            .into();
    assert_eq!(scan(&client, ScanSpec::all("t")).await.unwrap().len(), 30);
    cluster.state.lock().scan_answers = [refuse(Reason::InvalidArgument)].into();
    let spec = ScanSpec { limit: Some(1_000), ..ScanSpec::all("t") };
    let error = scan(&client, spec).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
}

// A repetition would name the same epoch, and another epoch would mix the rows of two refreshes.
#[tokio::test]
async fn scan_ends_when_its_epoch_is_not_readable() {
    let (cluster, client) = filled().await;
    let refused = || ScanAnswer::Refuse(Refusal::new(Reason::EpochRequired, "the latest is 9"));
    // A scan with a limit reads no region ahead.
    let spec = ScanSpec { limit: Some(1_000), as_of: Some(Epoch(5)), ..ScanSpec::all("t") };
    cluster.state.lock().scan_answers = [refused()].into();
    let error = scan(&client, spec.clone()).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    cluster.state.lock().scan_answers = [ScanAnswer::Normal, refused()].into();
    let error = scan(&client, spec.clone()).await.unwrap_err();
    assert!(matches!(error, ClientError::ScanInterrupted { rows: 10, .. }), "{error}");
    assert_eq!(cluster.state.lock().scans.len(), 3, "none is repeated");
    cluster.state.lock().scan_answers = [refused()].into();
    let error = client.count(spec).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn scan_follows_leader_change_and_split() {
    let (cluster, client) = filled().await;
    // The client's catalog contains neither change when the scan begins.
    {
        let mut state = cluster.state.lock();
        state.leader = 12;
        state.split(101, 15, (201, 202));
        state.publish_routes();
    }
    let all: Vec<i64> = (0..30).collect();
    assert_eq!(scan(&client, ScanSpec::all("t")).await.unwrap(), all);
    assert_eq!(client.count(ScanSpec::all("t")).await.unwrap(), 30);
}

#[tokio::test]
async fn reads_follow_routes_of_a_retired_group() {
    let (cluster, client) = filled().await;
    // The catalog of the client is that of before, when the reads begin.
    cluster.state.lock().move_to_another_group();
    let wanted = keys(&[3, 12]);
    // Both reads look for a leader of the group before the catalog says that it is retired.
    let publish = async {
        while cluster.state.lock().reads_of_other_groups < 10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        cluster.change(|_| {});
    };
    let (found, scanned, ()) =
        tokio::join!(client.get("t", &wanted, None), scan(&client, ScanSpec::all("t")), publish);
    assert_eq!(ids(&[found.unwrap()]), [3, 12]);
    assert_eq!(scanned.unwrap(), Vec::from_iter(0..30));
}

#[tokio::test]
async fn get_returns_rows_in_key_order() {
    let (cluster, client) = filled().await;
    cluster.state.lock().split(101, 15, (201, 202));
    cluster.state.lock().publish_routes();
    let found = client.get("t", &keys(&[29, 3, 16, 77, 12]), None).await.unwrap();
    assert_eq!(ids(&[found]), [3, 12, 16, 29]);
    let none = client.get("t", &keys(&[77]), None).await.unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (0, 2));
    let error = client.get("t", &rows([1]), None).await.unwrap_err();
    assert!(matches!(error, ClientError::BadInput(_)), "{error}");
}

#[tokio::test]
async fn scan_fails_when_its_task_ends_early() {
    let (out, rows) = tokio::sync::mpsc::channel(2);
    out.send(Ok(Some(crate::fake::rows([1])))).await.unwrap();
    drop(out);
    let stream = super::ScanStream {
        schema: crate::fake::table_info().schema.arrow(),
        table: "t".into(),
        rows,
        ended: false,
        _task: tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async {})),
    };
    assert!(matches!(stream.collect().await, Err(ClientError::Closed(_))));
}
