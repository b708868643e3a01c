use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use uuid::Uuid;

use super::testing::{Call, Fault, FaultyStore};
use super::*;

fn path(name: &str) -> Path {
    Path::from(name)
}

/// A store in memory and one in a directory, which exists as long as the second value.
async fn stores() -> (Vec<Storage>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    (vec![Storage::memory(), Storage::open(&url).await.unwrap()], dir)
}

#[tokio::test]
async fn put_if_absent_has_one_winner() {
    let (stores, _dir) = stores().await;
    for storage in stores {
        let at = path("a/b/object");
        let first = storage.put_if_absent(&at, Bytes::from_static(b"first")).await;
        assert!(matches!(first, PutOutcome::Created), "{first:?}");
        let second = storage.put_if_absent(&at, Bytes::from_static(b"second")).await;
        let PutOutcome::Conflict(error) = second else { panic!("{second:?}") };
        assert!(error.to_string().starts_with("put if absent "), "{error}");
        assert!(error.to_string().contains("a/b/object"), "{error}");
        assert_eq!(storage.get(&at).await.unwrap(), "first");
    }
}

#[tokio::test]
async fn storage_reads_lists_and_deletes_objects() {
    let (stores, _dir) = stores().await;
    for storage in stores {
        for name in ["d/3", "d/1", "d/2", "e/1"] {
            storage.put(&path(name), Bytes::from(format!("body of {name}"))).await.unwrap();
        }
        storage.put(&path("d/2"), Bytes::from_static(b"0123456789")).await.unwrap();
        let names = |objects: Vec<ObjectMeta>| -> Vec<String> {
            objects.iter().map(|object| object.location.to_string()).collect()
        };
        let listed = storage.list(&path("d"), None).await.unwrap();
        assert_eq!(names(listed), ["d/1", "d/2", "d/3"]);
        let listed = storage.list(&path("d"), Some(&path("d/1"))).await.unwrap();
        assert_eq!(names(listed), ["d/2", "d/3"]);
        assert_eq!(storage.list(&path("none"), None).await.unwrap(), []);

        assert_eq!(storage.get_range(&path("d/2"), 2..5).await.unwrap(), "234");
        let ranges = storage.get_ranges(&path("d/2"), &[0..1, 8..10]).await.unwrap();
        assert_eq!(ranges, ["0", "89"]);
        assert_eq!(storage.head(&path("d/2")).await.unwrap().size, 10);
        let short = storage.get_range(&path("d/2"), 8..12).await.unwrap_err();
        assert!(short.to_string().contains("d/2"), "{short}");

        storage.delete(&path("d/2")).await.unwrap();
        storage.delete(&path("d/2")).await.unwrap();
        assert!(storage.get(&path("d/2")).await.unwrap_err().is_not_found());
        assert_eq!(storage.get_opt(&path("d/2")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn object_above_its_limit_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let local = Storage::open(&format!("file://{}", dir.path().display())).await.unwrap();
    for storage in [Storage::memory(), local] {
        let at = path("object");
        storage.put(&at, Bytes::from_static(b"12345")).await.unwrap();
        assert_eq!(storage.get_within(&at, 5).await.unwrap(), "12345");
        assert_eq!(storage.get_opt_within(&at, 5).await.unwrap().unwrap(), "12345");
        for error in [
            storage.get_within(&at, 4).await.unwrap_err(),
            storage.get_opt_within(&at, 4).await.unwrap_err(),
        ] {
            let expected = format!("get {}: it has 5 bytes, the maximum is 4", storage.name(&at));
            assert_eq!((error.to_string(), error.is_transient()), (expected, false));
        }
        assert_eq!(storage.get_opt_within(&path("none"), 4).await.unwrap(), None);
    }
}

#[tokio::test]
async fn large_object_is_visible_only_when_complete() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let options =
        StorageOptions { part_bytes: 1_000, parts_in_flight: 2, ..StorageOptions::default() };
    let storage = Storage::open_with(&url, options).await.unwrap();
    let body: Bytes = (0..10_123_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
    for piece in [1, 7, 999, 1_000, 1_001, 20_000] {
        let at = path(&format!("parts/{piece}"));
        let mut upload = storage.upload(&at).await.unwrap();
        for chunk in body.chunks(piece) {
            upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            assert!(storage.get_opt(&at).await.unwrap().is_none(), "visible before it is finished");
        }
        let uploaded = upload.finish().await.unwrap();
        assert_eq!(uploaded.bytes, 10_123);
        assert_eq!(uploaded.checksum, crc32c::crc32c(&body));
        assert_eq!(storage.get(&at).await.unwrap(), body);
    }
    storage.put(&path("put"), body.clone()).await.unwrap();
    assert_eq!(storage.get(&path("put")).await.unwrap(), body);
    storage.upload(&path("empty")).await.unwrap().finish().await.unwrap();
    assert_eq!(storage.get(&path("empty")).await.unwrap(), "");
    let mut aborted = storage.upload(&path("aborted")).await.unwrap();
    aborted.write(body).await.unwrap();
    aborted.abort().await;
    assert!(storage.get_opt(&path("aborted")).await.unwrap().is_none());
}

/// Waits until the store has aborted all uploads, which a separate task does.
async fn wait_for_aborted_uploads(store: &FaultyStore, context: &str) {
    for _ in 0..1_000 {
        if store.open_uploads() == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{context}: the store still holds parts");
}

#[tokio::test]
async fn upload_that_ends_early_leaves_no_parts() {
    let options =
        StorageOptions { part_bytes: 1_000, parts_in_flight: 2, ..StorageOptions::default() };
    let body = Bytes::from(vec![7; 10_123]);
    let at = path("large");
    // Call 1 starts the upload; eleven parts and the completion follow.
    for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
        for number in 2..=13 {
            let store = FaultyStore::new();
            let storage = Storage::new(Arc::new(store.clone()), "faulty://store", options.clone());
            store.plan(move |call| {
                if call.operation == Operation::Upload && call.number == number {
                    fault
                } else {
                    Fault::None
                }
            });
            storage.put(&at, body.clone()).await.unwrap_err();
            wait_for_aborted_uploads(&store, &format!("{fault:?} of call {number}")).await;
        }
    }
    let store = FaultyStore::new();
    let storage = Storage::new(Arc::new(store.clone()), "faulty://store", options);
    let mut dropped = storage.upload(&at).await.unwrap();
    dropped.write(body.clone()).await.unwrap();
    assert_eq!(store.open_uploads(), 1);
    drop(dropped);
    wait_for_aborted_uploads(&store, "dropped").await;
    assert!(storage.get_opt(&at).await.unwrap().is_none());
    // Dropped in the middle of a call, like an aborted job.
    store.plan(|call| match (call.operation, call.number) {
        (Operation::Upload, 5) => Fault::LostAnswer,
        _ => Fault::None,
    });
    let put = storage.put(&at, body.clone());
    let hangs = tokio::time::timeout(Duration::from_millis(10), put).await;
    assert!(hangs.is_err());
    wait_for_aborted_uploads(&store, "dropped during a call").await;
    store.plan(|_| Fault::None);
    storage.put(&at, body.clone()).await.unwrap();
    assert_eq!(store.open_uploads(), 0);
    assert_eq!(storage.get(&at).await.unwrap(), body);
}

#[tokio::test]
async fn unusable_store_urls_name_the_problem() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let cases = [
        ("gopher://x/y".to_owned(), "unknown scheme"),
        ("relative/dir".to_owned(), "no scheme"),
        (format!("file://{}", file.display()), "not a directory"),
        (format!("file://{}/below", file.display()), "object store directory"),
        ("file:///proc/tidewater".to_owned(), "object store directory /proc/tidewater"),
        ("s3://".to_owned(), "no bucket"),
    ];
    for (url, part) in cases {
        let error = Storage::open(&url).await.unwrap_err().to_string();
        assert!(error.contains(part), "{url}: {error}");
    }
}

#[tokio::test]
async fn idempotent_calls_are_retried_up_to_the_limit() {
    let store = FaultyStore::new();
    let storage = store.storage();
    let at = path("x");
    storage.put(&at, Bytes::from_static(b"x")).await.unwrap();
    let fail_first = |times| {
        move |call: &Call| {
            if call.number <= times { Fault::ErrorBefore } else { Fault::None }
        }
    };
    store.plan(fail_first(2));
    assert_eq!(storage.get(&at).await.unwrap(), "x");
    assert_eq!(storage.list(&path(""), None).await.unwrap().len(), 1);
    storage.put(&at, Bytes::from_static(b"y")).await.unwrap();
    storage.delete(&at).await.unwrap();
    store.plan(fail_first(3));
    let error = storage.get(&at).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().starts_with("get faulty://store/x: "), "{error}");
    // A put if absent has one attempt: only the caller can resolve its outcome.
    store.plan(fail_first(1));
    assert!(matches!(storage.put_if_absent(&at, Bytes::new()).await, PutOutcome::Unknown(_)));
}

#[tokio::test]
async fn lost_answer_ends_at_the_deadline() {
    let store = FaultyStore::new();
    let storage = store.storage();
    store.plan(|_| Fault::LostAnswer);
    let outcome = storage.put_if_absent(&path("x"), Bytes::from_static(b"x")).await;
    let PutOutcome::Unknown(StorageError::Deadline { limit, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(limit, Duration::from_millis(200));
    store.plan(|_| Fault::None);
    assert_eq!(storage.get(&path("x")).await.unwrap(), "x");
}

#[tokio::test]
async fn correct_store_passes_the_probe_and_stays_clean() {
    let (stores, _dir) = stores().await;
    for storage in stores {
        storage.probe(Uuid::from_u128(1)).await.unwrap();
        storage.probe(Uuid::from_u128(1)).await.unwrap();
        assert_eq!(storage.list(&path(""), None).await.unwrap(), []);
    }
}

#[tokio::test]
async fn probe_failure_names_the_broken_guarantee() {
    let put = |call: &Call| call.operation == Operation::PutIfAbsent;
    type Plan = Box<dyn Fn(&Call) -> Fault + Send + Sync>;
    let cases: Vec<(Plan, ProbeTest, &str)> = vec![
        (
            Box::new(move |call| if put(call) { Fault::Overwrite } else { Fault::None }),
            ProbeTest::PutIfAbsent,
            "put if absent",
        ),
        (
            Box::new(move |call| match (put(call), call.number) {
                (true, 2) => Fault::OverwriteAndRefuse,
                _ => Fault::None,
            }),
            ProbeTest::PutIfAbsent,
            "overwrote it",
        ),
        (
            Box::new(|call| match call.operation {
                Operation::List => Fault::StaleList,
                _ => Fault::None,
            }),
            ProbeTest::ListAfterWrite,
            "list after write",
        ),
        (
            Box::new(move |call| if put(call) { Fault::ErrorBefore } else { Fault::None }),
            ProbeTest::Write,
            "injected error",
        ),
        (
            Box::new(|call| match call.operation {
                Operation::Get => Fault::ErrorBefore,
                _ => Fault::None,
            }),
            ProbeTest::ReadBack,
            "\"read back\"",
        ),
        (
            Box::new(|call| match call.operation {
                Operation::Delete => Fault::ErrorBefore,
                _ => Fault::None,
            }),
            ProbeTest::Delete,
            "\"delete\"",
        ),
    ];
    for (plan, test, part) in cases {
        let store = FaultyStore::new();
        store.plan(plan);
        let error = store.storage().probe(Uuid::from_u128(1)).await.unwrap_err();
        assert_eq!(error.test, test, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("faulty://"), "{error}");
    }
}

#[tokio::test]
async fn cluster_marker_is_written_once() {
    let (stores, _dir) = stores().await;
    for storage in stores {
        assert_eq!(storage.marker().await.unwrap(), None);
        let first = storage.mark(Uuid::from_u128(1)).await.unwrap();
        assert_eq!(first.object_store_id, Uuid::from_u128(1));
        assert_eq!(storage.mark(Uuid::from_u128(2)).await.unwrap(), first);
        let body = storage.get(&path(CLUSTER_MARKER)).await.unwrap();
        assert_eq!(body, r#"{"object_store_id":"00000000-0000-0000-0000-000000000001"}"#);
        storage.put(&path(CLUSTER_MARKER), Bytes::from_static(b"{}")).await.unwrap();
        let error = storage.mark(Uuid::from_u128(2)).await.unwrap_err();
        assert!(matches!(error, MarkerError::Damaged { .. }), "{error}");
    }
}

#[tokio::test]
async fn lost_marker_write_returns_the_stored_marker() {
    for fault in [Fault::ErrorAfter, Fault::StoredConflict, Fault::LostAnswer] {
        let store = FaultyStore::new();
        store.plan(move |call| match call.operation {
            Operation::PutIfAbsent => fault,
            _ => Fault::None,
        });
        let marker = store.storage().mark(Uuid::from_u128(1)).await.unwrap();
        assert_eq!(marker.object_store_id, Uuid::from_u128(1));
    }
    let store = FaultyStore::new();
    store.plan(|call| match call.operation {
        Operation::PutIfAbsent => Fault::ErrorBefore,
        _ => Fault::None,
    });
    let error = store.storage().mark(Uuid::from_u128(1)).await.unwrap_err();
    assert!(error.to_string().contains(CLUSTER_MARKER), "{error}");
}

#[test]
fn missing_bucket_is_not_a_missing_object() {
    let missing =
        || object_store::Error::NotFound { path: "x".to_owned(), source: "NoSuchBucket".into() };
    let read = StorageError::store(Operation::Get, "s3://b/x".to_owned(), missing());
    assert!(read.is_not_found());
    let write = StorageError::store(Operation::PutIfAbsent, "s3://b/x".to_owned(), missing());
    assert!(!write.is_not_found() && !write.is_transient());
    assert!(write.to_string().contains("NoSuchBucket"), "{write}");
}

#[tokio::test(start_paused = true)]
async fn parts_progress_while_the_writer_computes() {
    let store = FaultyStore::new();
    let second = Duration::from_secs(1);
    store.plan(move |call| match call.operation {
        Operation::Upload => Fault::Slow(second),
        _ => Fault::None,
    });
    let options =
        StorageOptions { part_bytes: 10, parts_in_flight: 4, ..StorageOptions::default() };
    let storage = Storage::new(Arc::new(store.clone()), "faulty://store", options);
    let mut upload = storage.upload(&path("large")).await.unwrap();
    upload.write(Bytes::from(vec![7; 40])).await.unwrap();
    // Longer than any timeout of a request.
    let compute = 2 * StorageOptions::default().deadline;
    tokio::time::sleep(compute).await;
    let started = tokio::time::Instant::now();
    upload.finish().await.unwrap();
    assert_eq!(started.elapsed(), second, "only the completion remains");
}
