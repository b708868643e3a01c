use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewater_common::granted_dirs::DirectoryGrants;
use tokio::io::AsyncWriteExt;

use super::super::target::PART_BYTES;
use super::super::{ExportTargets, Target, TargetError};
use super::s3_server::S3Server;
use super::{bytes, listed};
use crate::{SourceAccess, SourceHosts};

struct Store {
    dir: tempfile::TempDir,
    server: Arc<S3Server>,
    port: u16,
}

impl Store {
    async fn start() -> Self {
        let (server, port) = S3Server::start().await;
        Self { dir: tempfile::tempdir().unwrap(), server, port }
    }

    fn config(&self) -> Value {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let file = self.dir.path().canonicalize().unwrap().join("keys");
        let keys = format!(
            "access_key_id=mykey\nsecret_access_key=s3cr3t\nbucket=bucket\nendpoint={endpoint}\n"
        );
        std::fs::write(&file, keys).unwrap();
        json!({ "url": "s3://bucket/p/", "endpoint": endpoint, "allow_http": true,
                "credentials_file": file.display().to_string() })
    }

    /// Opens the target on a node that permits these hosts.
    async fn open_on(&self, hosts: &[&str]) -> Target {
        let mut grants = DirectoryGrants::new(&[]);
        let access = SourceAccess::new(None, Some(self.dir.path()), &mut grants).unwrap();
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let access = access.with_hosts(SourceHosts::new(hosts));
        let targets = ExportTargets::new(access, None, &mut grants).unwrap();
        targets.open(&self.config()).await.unwrap()
    }

    async fn open(&self) -> Target {
        self.open_on(&["127.0.0.1"]).await
    }

    fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.server.objects.lock().unwrap().get(key).cloned()
    }

    fn refuse(&self, method: &'static str, status: &'static str) {
        *self.server.refused.lock().unwrap() = Some((method, status));
    }
}

#[tokio::test]
async fn remote_object_is_written_once() {
    let store = Store::start().await;
    let target = store.open().await;
    assert_eq!((target.url(), target.is_local()), ("s3://bucket/p", false));
    assert!(store.server.lines().is_empty(), "a request was sent");
    assert_eq!(target.put_new("a/x", bytes("one")).await, Ok(true));
    assert_eq!(target.put_new("a/x", bytes("two")).await, Ok(false));
    assert_eq!(store.object("p/a/x").unwrap(), b"one");
    assert_eq!(target.get("a/x", 3).await, Ok(Some(bytes("one"))));
    assert_eq!(target.get("a/y", 3).await, Ok(None));
    let too_large = target.get("a/x", 2).await.unwrap_err();
    assert!(matches!(too_large, TargetError::Invalid(_)), "{too_large:?}");
    target.put_new("b", bytes("")).await.unwrap();
    assert_eq!(listed(&target, "").await, ["a/x", "b"]);
    assert_eq!(listed(&target, "a").await, ["a/x"]);
    assert_eq!(target.list("", 1).await.unwrap().len(), 1);
    for _ in 0..2 {
        assert_eq!(target.delete("a/x").await, Ok(()));
    }
    assert_eq!(store.object("p/a/x"), None);
    for head in store.server.heads.lock().unwrap().iter() {
        assert!(head.contains("credential=mykey/") && !head.contains("s3cr3t"), "{head}");
    }
}

#[tokio::test]
async fn conflict_without_an_object_is_an_error() {
    let store = Store::start().await;
    let target = store.open().await;
    for status in ["409 Conflict", "412 Precondition Failed"] {
        store.refuse("PUT", status);
        let error = target.put_new("x", bytes("")).await.unwrap_err();
        assert!(matches!(error, TargetError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().starts_with("s3://bucket/p/x: another write"), "{error}");
    }
}

#[tokio::test]
async fn remote_object_appears_when_its_writer_closes() {
    let store = Store::start().await;
    let target = store.open().await;
    for size in [10, PART_BYTES * 2 + 1] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let mut writer = target.writer("a/x").unwrap();
        writer.write_all(&content).await.unwrap();
        assert_eq!(target.get("a/x", u64::MAX).await, Ok(None));
        writer.shutdown().await.unwrap();
        assert!(store.object("p/a/x").unwrap() == content, "{size}");
        target.delete("a/x").await.unwrap();
    }
}

#[tokio::test]
async fn dropped_writer_removes_its_parts() {
    let store = Store::start().await;
    let target = store.open().await;
    let mut writer = target.writer("x").unwrap();
    writer.write_all(&vec![0; PART_BYTES]).await.unwrap();
    writer.write_all(&[0]).await.unwrap();
    drop(writer);
    store.server.wait_for("DELETE /bucket/p/x?uploadId=1").await;
    assert_eq!(store.object("p/x"), None);
}

#[tokio::test]
async fn refused_requests_are_errors_without_texts_of_the_server() {
    let store = Store::start().await;
    let target = store.open().await;
    store.refuse("P", "403 Forbidden");
    let mut writer = target.writer("x").unwrap();
    writer.write_all(b"x").await.unwrap();
    let failed = writer.shutdown().await.unwrap_err();
    let mut writer = target.writer("x").unwrap();
    let failed_part = writer.write_all(&vec![0; PART_BYTES]).await.unwrap_err();
    for error in [
        target.put_new("x", bytes("x")).await.unwrap_err(),
        target.delete("x").await.unwrap_err(),
        TargetError::find_in(&failed).unwrap().clone(),
        TargetError::find_in(&failed_part).unwrap().clone(),
    ] {
        assert_eq!(
            error,
            TargetError::Unavailable(
                "s3://bucket/p/x: the store returns the status 403 Forbidden: Refused: check \
                 credentials_file, and the permissions of its keys"
                    .to_owned()
            )
        );
    }
}

#[tokio::test]
async fn silent_store_is_reported_after_the_timeout() {
    let store = Store::start().await;
    let mut target = store.open().await;
    target.timeout = Duration::from_millis(50);
    store.refuse("P", "");
    let mut writer = target.writer("x").unwrap();
    writer.write_all(b"x").await.unwrap();
    let failed = writer.shutdown().await.unwrap_err();
    for error in [
        target.put_new("x", bytes("x")).await.unwrap_err(),
        TargetError::find_in(&failed).unwrap().clone(),
    ] {
        assert!(matches!(error, TargetError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().starts_with("s3://bucket/p/x: no response within"), "{error}");
    }
}

#[tokio::test]
async fn objects_are_sent_to_permitted_hosts_only() {
    let store = Store::start().await;
    for hosts in [&[][..], &["10.0.0.0/8"]] {
        let target = store.open_on(hosts).await;
        let error = target.put_new("x", bytes("x")).await.unwrap_err();
        assert!(matches!(error, TargetError::NotPermitted(_)), "{error:?}");
    }
    assert!(store.server.lines().is_empty());
}
