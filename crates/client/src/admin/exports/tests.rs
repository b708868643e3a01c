//! Calls of exports by the answers to their attempts.

use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_proto::v1::{self, Reason};
use uuid::Uuid;

use super::{ExportDefinition, PAGE};
use crate::admin::storage_pages::ListEntry;
use crate::client::Client;
use crate::error::ClientError;
use crate::fake::FakeCluster;

const MINUTE: Duration = Duration::from_secs(60);

fn definition(name: &str) -> ExportDefinition {
    ExportDefinition {
        name: name.to_owned(),
        table: "t".to_owned(),
        target: r#"{"url":"file:///srv/exports/t"}"#.to_owned(),
        epoch: Some(Epoch(7)),
        token: None,
        interval: Duration::from_secs(10),
    }
}

fn with_token(name: &str, token: &str) -> ExportDefinition {
    ExportDefinition { epoch: None, token: Some(token.to_owned()), ..definition(name) }
}

fn reason(error: &ClientError) -> Option<Reason> {
    error.refusal().map(|refusal| refusal.reason)
}

async fn prepare(client: &Client) -> v1::ReadHold {
    client.prepare_export("t", Some(Epoch(5)), MINUTE, "a test").await.unwrap()
}

#[tokio::test]
async fn repeated_preparation_has_the_same_token() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.storage.lock().lose_response = true;
    let held = prepare(&client).await;
    assert_eq!((held.epoch, held.lease_ms, held.holder.as_str()), (5, 60_000, "a test"));
    let storage = cluster.storage.lock();
    assert_eq!(storage.holds.keys().collect::<Vec<_>>(), [&held.name]);
    let ids = &storage.export_requests;
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]));
}

#[tokio::test]
async fn repeated_creation_returns_the_same_export() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    cluster.storage.lock().lose_response = true;
    let export = client.create_export(definition("e")).await.unwrap();
    assert_eq!((export.name.as_str(), export.as_of, export.interval_ms), ("e", 7, 10_000));
    client.create_export(definition("f")).await.unwrap();
    let ids = cluster.storage.lock().export_requests.clone();
    assert_eq!((ids.len(), &ids[0]), (3, &ids[1]));
    assert_ne!(ids[1], ids[2]);
    let id = Uuid::from_slice(&export.id).unwrap();
    assert_eq!(id.to_string(), ids[0]);
}

#[tokio::test]
async fn creation_of_a_used_name_is_refused() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    client.create_export(definition("e")).await.unwrap();
    let error = client.create_export(definition("e")).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    assert_eq!(reason(&error), Some(Reason::ExportExists));
}

#[tokio::test]
async fn creation_uses_up_its_token() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let token = prepare(&client).await.name;
    let export = client.create_export(with_token("e", &token)).await.unwrap();
    assert_eq!(export.as_of, 5, "the epoch of the token");
    assert!(cluster.storage.lock().holds.is_empty());
    let error = client.create_export(with_token("f", &token)).await.unwrap_err();
    assert_eq!(reason(&error), Some(Reason::ExportTokenExpired));
}

#[tokio::test]
async fn cancelled_token_creates_no_export() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let token = prepare(&client).await.name;
    client.cancel_prepare_export(&token).await.unwrap();
    client.cancel_prepare_export(&token).await.unwrap();
    let error = client.create_export(with_token("e", &token)).await.unwrap_err();
    assert_eq!(reason(&error), Some(Reason::ExportTokenExpired));
    assert!(client.exports().await.unwrap().is_empty());
}

#[tokio::test]
async fn exports_are_read_in_pages() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let names: Vec<String> = (0..2 * PAGE + 1).map(|number| format!("{number:04}")).collect();
    cluster.storage.lock().add_exports(names.clone());
    client.create_export(definition("z")).await.unwrap();
    let found = client.exports().await.unwrap();
    let found: Vec<&str> = found.iter().map(ListEntry::name).collect();
    let expected: Vec<&str> = names.iter().map(String::as_str).chain(["z"]).collect();
    assert_eq!(found, expected);
    assert_eq!(cluster.storage.lock().lists, 3);
}

#[tokio::test]
async fn export_is_found_by_its_whole_name() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let many = (0..PAGE + 5).map(|number| format!("ab{number:04}"));
    let others = ["a", "abc", "é"].map(str::to_owned);
    cluster.storage.lock().add_exports(many.chain(others));
    for name in ["a", "abc", "ab0254", "é"] {
        let found = client.export(name).await.unwrap();
        assert_eq!(found.as_ref().map(ListEntry::name), Some(name), "{name}");
    }
    for name in ["", "ab", "ab9", "z"] {
        assert_eq!(client.export(name).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn dropped_export_cannot_be_dropped_again() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    client.create_export(definition("e")).await.unwrap();
    client.drop_export("e").await.unwrap();
    assert!(cluster.storage.lock().exports.is_empty());
    let error = client.drop_export("e").await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    assert_eq!(reason(&error), Some(Reason::ExportNotFound));
}

#[tokio::test]
async fn drop_with_a_lost_response_succeeds() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    client.create_export(definition("e")).await.unwrap();
    cluster.storage.lock().lose_response = true;
    client.drop_export("e").await.unwrap();
    assert!(cluster.storage.lock().exports.is_empty());
}

#[test]
fn request_has_zero_for_absent_parameters() {
    let minimal = ExportDefinition { epoch: None, interval: Duration::ZERO, ..definition("e") };
    let request = minimal.request(Uuid::from_u128(3));
    assert_eq!((request.epoch, request.interval_ms, request.token.as_str()), (0, 0, ""));
    assert_eq!(request.request_id, "00000000-0000-0000-0000-000000000003");
}
