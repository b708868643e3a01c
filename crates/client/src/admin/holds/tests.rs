//! Calls of holds by the answers to their attempts.

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_proto::v1::Reason;

use super::live::ClientRenewals;
use super::renewal::Renewals;
use super::{AcquireHold, HoldLoss, PAGE};
use crate::admin::storage_pages::ListEntry;
use crate::error::ClientError;
use crate::fake::FakeCluster;

fn hold(name: &str) -> AcquireHold {
    AcquireHold {
        name: name.to_owned(),
        holder: "a test".to_owned(),
        tables: vec!["t".to_owned()],
        epoch: Some(Epoch(7)),
        lease: Duration::from_secs(60),
        like: None,
    }
}

fn reason(error: &ClientError) -> Option<Reason> {
    error.refusal().map(|refusal| refusal.reason)
}

#[tokio::test]
async fn repeated_acquisition_has_the_same_request_id() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.storage.lock().refuse(Reason::LeadershipLost);
    let acquired = client.acquire_read_hold(hold("h")).await.unwrap();
    assert_eq!((acquired.name.as_str(), acquired.epoch, acquired.lease_ms), ("h", 7, 60_000));
    client.acquire_read_hold(hold("i")).await.unwrap();
    let ids: Vec<String> = {
        let storage = cluster.storage.lock();
        storage.acquisitions.iter().map(|request| request.request_id.clone()).collect()
    };
    assert_eq!((ids.len(), &ids[0]), (3, &ids[1]));
    assert_ne!(ids[1], ids[2]);
}

#[tokio::test]
async fn acquisition_of_a_used_name_is_refused() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.storage.lock().refuse(Reason::HoldExists);
    let error = client.acquire_read_hold(hold("h")).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    assert_eq!(reason(&error), Some(Reason::HoldExists));
    assert_eq!(cluster.storage.lock().acquisitions.len(), 1);
}

#[tokio::test]
async fn holds_are_read_in_pages() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let names: Vec<String> = (0..2 * PAGE + 1).map(|number| format!("{number:04}")).collect();
    cluster.storage.lock().add_holds(names.clone());
    client.acquire_read_hold(hold("z")).await.unwrap();
    let found = client.read_holds(None).await.unwrap();
    let found: Vec<&str> = found.iter().map(ListEntry::name).collect();
    let expected: Vec<&str> = names.iter().map(String::as_str).chain(["z"]).collect();
    assert_eq!(found, expected);
    assert_eq!(cluster.storage.lock().lists, 3);
    let of_table = client.read_holds(Some("t")).await.unwrap();
    assert_eq!(of_table.iter().map(ListEntry::name).collect::<Vec<_>>(), ["z"]);
}

#[tokio::test]
async fn hold_is_found_by_its_whole_name() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let many = (0..PAGE + 5).map(|number| format!("ab{number:04}"));
    let others = ["a", "abc", "é", "éa"].map(str::to_owned);
    cluster.storage.lock().add_holds(many.chain(others));
    for name in ["a", "abc", "ab0254", "é", "éa"] {
        let found = client.read_hold(name).await.unwrap();
        assert_eq!(found.as_ref().map(ListEntry::name), Some(name), "{name}");
    }
    for name in ["", "ab", "ab9", "z", "éab"] {
        assert_eq!(client.read_hold(name).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn many_holds_are_renewed_in_several_calls() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let mut names: Vec<String> = (0..1_500).map(|number| format!("h{number}")).collect();
    cluster.storage.lock().add_holds(names.clone());
    names[3] = "missing".to_owned();
    names.push("absent".to_owned());
    assert_eq!(client.renew_read_holds(&names).await.unwrap(), ["missing", "absent"]);
    assert_eq!(cluster.storage.lock().renewals, 2);
    assert_eq!(client.release_read_holds(&names).await.unwrap(), 1_499);
    assert_eq!(cluster.storage.lock().holds.len(), 1);
    assert_eq!(client.release_read_holds(&names).await.unwrap(), 0);
}

#[tokio::test]
async fn live_hold_is_downgraded_and_released() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let mut held = client.hold(hold("h")).await.unwrap();
    assert_eq!((held.name(), held.epoch(), held.loss()), ("h", Epoch(7), None));
    held.downgrade(Epoch(9)).await.unwrap();
    assert_eq!(held.epoch(), Epoch(9));
    cluster.storage.lock().refuse(Reason::InvalidArgument);
    let error = held.downgrade(Epoch(8)).await.unwrap_err();
    assert_eq!(reason(&error), Some(Reason::InvalidArgument));
    assert_eq!((held.epoch(), held.is_lost()), (Epoch(9), false));
    let lost = held.lost();
    held.release().await.unwrap();
    assert!(cluster.storage.lock().holds.is_empty());
    // A release is no loss.
    let waited = tokio::time::timeout(Duration::from_millis(20), lost).await;
    assert!(waited.is_err());
}

#[tokio::test]
async fn dropped_hold_is_left_to_its_lease() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let held = client.hold(hold("h")).await.unwrap();
    drop(held);
    assert!(cluster.storage.lock().holds.contains_key("h"));
}

#[tokio::test]
async fn downgrade_of_a_missing_hold_loses_it() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let mut held = client.hold(hold("h")).await.unwrap();
    cluster.storage.lock().holds.clear();
    let error = held.downgrade(Epoch(9)).await.unwrap_err();
    assert_eq!(reason(&error), Some(Reason::HoldNotFound));
    assert_eq!((held.epoch(), held.loss()), (Epoch(7), Some(HoldLoss::NotFound)));
    assert_eq!(held.lost().await, HoldLoss::NotFound);
}

#[tokio::test]
async fn downgrade_with_unknown_outcome_counts_as_made() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let mut held = client.hold(hold("h")).await.unwrap();
    // The first attempt may have moved the hold.
    cluster.storage.lock().refuse(Reason::LeadershipLost);
    cluster.storage.lock().refuse(Reason::InvalidArgument);
    let error = held.downgrade(Epoch(9)).await.unwrap_err();
    assert!(error.maybe_done(), "{error}");
    assert_eq!((held.epoch(), held.is_lost()), (Epoch(9), false));
}

#[tokio::test]
async fn renewal_reports_whether_the_hold_exists() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    client.acquire_read_hold(hold("h")).await.unwrap();
    let calls = ClientRenewals { client, name: "h".to_owned() };
    let longest = Duration::from_secs(60);
    assert!(calls.renew(longest).await.unwrap());
    cluster.storage.lock().refuse(Reason::HoldNotFound);
    assert!(!calls.renew(longest).await.unwrap(), "a node may refuse a missing hold");
    cluster.storage.lock().holds.clear();
    assert!(!calls.renew(longest).await.unwrap());
    cluster.storage.lock().refuse(Reason::InvalidArgument);
    assert_eq!(reason(&calls.renew(longest).await.unwrap_err()), Some(Reason::InvalidArgument));
}
