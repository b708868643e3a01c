use std::fs;

use serde_json::json;
use tidewater_source_kinds::testing::unconditional_target;

use super::*;
use crate::exports::testing::{ExportDirectory, open_target, reason};

fn cluster(number: u128) -> ClusterId {
    ClusterId(Uuid::from_u128(number))
}

#[tokio::test]
async fn target_belongs_to_the_export_with_its_claim() {
    let directory = ExportDirectory::new();
    let first = directory.open(5).await;
    assert_eq!(reason(first.check_claimed().await), Reason::ExportPrefixInUse);
    for _ in 0..2 {
        first.claim().await.unwrap();
        first.check_claimed().await.unwrap();
    }
    let other = OpenTarget { name: "y".to_owned(), ..directory.open(6).await };
    let refused = other.claim().await.unwrap_err();
    assert_eq!(refused.reason, Reason::ExportPrefixInUse);
    assert!(refused.message.contains("is the prefix of export \"x\" of table \"t\""), "{refused}");
    assert!(refused.message.contains("use another prefix"), "{refused}");
    assert_eq!(other.check_claimed().await.unwrap_err(), refused);
    let other_cluster = OpenTarget { cluster: cluster(2), ..directory.open(5).await };
    assert_eq!(reason(other_cluster.claim().await), Reason::ExportPrefixInUse);
    assert_eq!(directory.files(), [IDENTITY]);
}

#[tokio::test]
async fn claim_of_a_failed_creation_is_replaced() {
    let directory = ExportDirectory::new();
    let failed = directory.open(5).await;
    failed.claim().await.unwrap();
    let repeated = directory.open(6).await;
    repeated.claim().await.unwrap();
    repeated.check_claimed().await.unwrap();
    assert_eq!(reason(failed.check_claimed().await), Reason::ExportPrefixInUse);
    // Not once it has written anything, also for an export with the same id.
    fs::create_dir_all(directory.prefix().join("data")).unwrap();
    fs::write(directory.prefix().join("data/file"), "rows").unwrap();
    for export in [5, 6] {
        let target = directory.open(export).await;
        assert_eq!(reason(target.claim().await), Reason::ExportPrefixInUse, "{export}");
    }
}

#[tokio::test]
async fn prefix_with_objects_is_not_claimed() {
    let directory = ExportDirectory::new();
    fs::create_dir_all(directory.prefix().join("old")).unwrap();
    fs::write(directory.prefix().join("old/file"), "rows").unwrap();
    let target = directory.open(5).await;
    let refused = target.claim().await.unwrap_err();
    assert_eq!(refused.reason, Reason::ExportPrefixInUse);
    assert!(refused.message.contains("is not empty: it has old/file"), "{refused}");
    assert_eq!(directory.files(), ["old/file"]);
    fs::write(directory.prefix().join(IDENTITY), "{").unwrap();
    assert_eq!(reason(target.claim().await), Reason::Corrupt);
}

#[tokio::test]
async fn store_that_ignores_conditions_is_refused() {
    let target = open_target(5, unconditional_target("s3://bucket/p"));
    // The second claim finds an object, as after a crash between its creation and the check.
    for is_found in [false, true] {
        if is_found {
            let identity = ExportIdentity::new(cluster(1), Uuid::from_u128(5), "x", "t");
            target.put_new(IDENTITY, encoded(IDENTITY, &identity).unwrap()).await.unwrap();
        }
        let refused = target.claim().await.unwrap_err();
        assert_eq!(refused.reason, Reason::ExportTargetUnavailable);
        assert!(refused.message.starts_with("s3://bucket/p: the store ignores"), "{refused}");
        assert_eq!(target.target.list("", 10).await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn missing_claim_names_its_causes() {
    let local = ExportDirectory::new().open(5).await.check_claimed().await.unwrap_err();
    assert!(local.message.contains("is not shared by all data nodes"), "{local}");
    let remote = open_target(5, unconditional_target("s3://bucket/p"));
    let remote = remote.check_claimed().await.unwrap_err();
    assert_eq!(remote.reason, Reason::ExportPrefixInUse);
    assert!(remote.message.starts_with("s3://bucket/p/_export.json was removed"), "{remote}");
    assert!(!remote.message.contains("directory"), "{remote}");
}

#[test]
fn calls_with_invalid_targets_are_refused() {
    let directory = ExportDirectory::new();
    let valid = v1::ExportTarget {
        export_id: Bytes::copy_from_slice(Uuid::from_u128(5).as_bytes()),
        name: "x".to_owned(),
        table: "t".to_owned(),
        target: directory.config().to_string(),
    };
    let own = OwnPrefix::new("s3://bucket/own", |_| None);
    let read = |target| UnopenedTarget::new(directory.targets(), &own, cluster(1), target);
    assert_eq!(read(Some(valid.clone())).unwrap().export, Uuid::from_u128(5));
    let id = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let of = |target: &str| v1::ExportTarget { target: target.to_owned(), ..valid.clone() };
    for (target, expected) in [
        (None, "names no target"),
        (Some(v1::ExportTarget { export_id: id(b""), ..valid.clone() }), "UUID of 16 bytes"),
        (Some(v1::ExportTarget { export_id: id(b"short"), ..valid.clone() }), "UUID of 16 bytes"),
        (Some(of("")), "is not JSON"),
        (Some(of("{")), "is not JSON"),
        (Some(of("{}")), "url"),
        (Some(of(&json!({ "url": "ftp://host/x" }).to_string())), "s3://bucket/prefix"),
    ] {
        let refused = read(target).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "{refused}");
        assert!(refused.message.contains(expected), "{refused}");
    }
    let beside = json!({ "url": "s3://bucket/exports" }).to_string();
    read(Some(of(&beside))).unwrap();
    let inside = json!({ "url": "s3://bucket/own/exports" }).to_string();
    let refused = read(Some(of(&inside))).unwrap_err();
    assert_eq!(refused.reason, Reason::ExportTargetUnavailable);
    assert!(refused.message.contains("is in s3://bucket/own, the object store"), "{refused}");
}

#[test]
fn errors_of_targets_keep_their_text() {
    for (error, expected) in [
        (TargetError::Unavailable("full".to_owned()), Reason::ExportTargetUnavailable),
        (TargetError::NotPermitted("outside".to_owned()), Reason::ExportTargetUnavailable),
        (TargetError::BadConfig("no url".to_owned()), Reason::InvalidArgument),
        (TargetError::Invalid("too large".to_owned()), Reason::Corrupt),
    ] {
        let text = error.to_string();
        let refusal = target_error(error);
        assert_eq!((refusal.reason, refusal.message), (expected, text));
    }
}
