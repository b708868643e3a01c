//! Tests of webhooks with a receiver that is down, and with one that speaks HTTP.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tidewater_common::ids::{Incarnation, NodeId, RegionId, TableId};
use tidewater_region_engine::hooks::{
    EventSource, FilesRemoved, HookEvent, RegionEvent, RemovalReason,
};
use tidewater_region_engine::layout::RegionDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::transport::{PostOutcome, Transport, signature};
use super::*;
use crate::record_hook::RecordSink;

/// Receiver that accepts calls while it is up.
#[derive(Debug, Clone, Default)]
struct FakeReceiver {
    up: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<Bytes>>>,
    outcomes: Arc<Mutex<VecDeque<PostOutcome>>>,
}

#[async_trait]
impl Transport for FakeReceiver {
    async fn post(&self, body: Bytes) -> PostOutcome {
        if !self.up.load(Ordering::SeqCst) {
            return PostOutcome::Retry("down".to_owned());
        }
        if let Some(outcome) = self.outcomes.lock().pop_front() {
            return outcome;
        }
        self.received.lock().push(body);
        PostOutcome::Accepted
    }
}

async fn wait_until(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(3_600), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the condition was not met within an hour");
}

#[tokio::test(start_paused = true)]
async fn webhook_queue_is_bounded_while_the_receiver_is_down() {
    let fake = FakeReceiver::default();
    let queue = WebhookQueue::new("w", fake.clone(), 100, QUEUE_BYTES);
    let mut refused = 0;
    for number in 0..3_600 {
        if queue.push(Bytes::from(format!("{number}"))).is_err() {
            refused += 1;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(queue.backlog() <= 100);
    }
    assert_eq!((queue.backlog(), refused), (100, 3_500));
    fake.up.store(true, Ordering::SeqCst);
    wait_until(|| queue.backlog() == 0).await;
    let expected: Vec<_> = (0..100).map(|number| Bytes::from(format!("{number}"))).collect();
    assert_eq!(*fake.received.lock(), expected);
    queue.push(Bytes::from("later")).unwrap();
    wait_until(|| queue.backlog() == 0).await;
    assert_eq!((fake.received.lock().len(), queue.lost()), (101, 0));
}

#[tokio::test(start_paused = true)]
async fn rejected_call_is_counted_and_does_not_block() {
    let fake = FakeReceiver::default();
    fake.up.store(true, Ordering::SeqCst);
    fake.outcomes.lock().push_back(PostOutcome::Rejected("gone".to_owned()));
    let queue = WebhookQueue::new("w", fake.clone(), 100, QUEUE_BYTES);
    queue.push(Bytes::from("first")).unwrap();
    queue.push(Bytes::from("second")).unwrap();
    wait_until(|| queue.backlog() == 0).await;
    assert_eq!(*fake.received.lock(), ["second"]);
    assert_eq!(queue.lost(), 1);
}

/// Starts a receiver that responds with these statuses in turn; its task returns the requests,
/// header and body.
async fn receiver(statuses: &'static [u16]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            while !whole(&text) {
                let mut part = [0; 4_096];
                let read = stream.read(&mut part).await.unwrap();
                text.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            requests.push(text);
            let answer =
                format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (url, task)
}

fn files_removed(removed: FilesRemoved) -> RegionEvent {
    let dir =
        RegionDir { table_id: TableId(3), region_id: RegionId(7), incarnation: Incarnation(1) };
    RegionEvent { source: EventSource::new(dir), event: HookEvent::FilesRemoved(removed) }
}

fn whole(text: &str) -> bool {
    let Some((header, body)) = text.split_once("\r\n\r\n") else { return false };
    header_of(header, "content-length").is_some_and(|length| length == body.len().to_string())
}

fn header_of<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)?.1.into())
}

#[tokio::test]
async fn webhook_signs_calls_and_retries_until_accepted() {
    let (url, task) = receiver(&[503, 200]).await;
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("secret");
    std::fs::write(&secret_file, "Jefe\n").unwrap();
    let spec = HookSpec {
        name: "mirror".to_owned(),
        kind: "webhook".to_owned(),
        config: json!({ "url": url, "secret_file": secret_file }),
        durable: false,
        generation: 0,
    };
    let access = HookAccess::new(None, Some(dir.path()), true, &[]).unwrap();
    let home = HookHome { role: "data", node_id: NodeId(101) };
    let hook = Webhook { access }.make(&spec, home).unwrap();
    let removed = FilesRemoved { files: Vec::new(), reason: RemovalReason::Drop };
    hook.on_event(&files_removed(removed)).await.unwrap();
    let requests = tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
    assert_eq!(requests[0], requests[1], "the retry differs from the first request");
    let (header, body) = requests[1].split_once("\r\n\r\n").unwrap();
    assert!(header.starts_with("POST /in HTTP/1.1"), "{header}");
    assert_eq!(header_of(header, "content-type"), Some("application/json"));
    assert_eq!(header_of(header, "x-tidewater-hook"), Some("mirror"));
    let signed = signature(b"Jefe", body.as_bytes());
    assert_eq!(header_of(header, "x-tidewater-signature"), Some(signed.as_str()));
    let record: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&record["event"], &record["region_id"]), (&json!("files_removed"), &json!(7)));
}

#[tokio::test]
async fn durable_webhook_reports_failed_and_rejected_calls() {
    let fake = FakeReceiver::default();
    let sink = DirectSink::new(fake.clone());
    let record = || {
        let home = HookHome { role: "data", node_id: NodeId(101) };
        let removed = FilesRemoved { files: Vec::new(), reason: RemovalReason::Drop };
        crate::record::Record::new("w", home, &files_removed(removed), Vec::new())
    };
    assert!(sink.put(record()).await.is_err(), "the receiver is down");
    fake.up.store(true, Ordering::SeqCst);
    // A hook with a queue would drop this call.
    fake.outcomes.lock().push_back(PostOutcome::Rejected("no".to_owned()));
    assert!(sink.put(record()).await.is_err());
    assert!(fake.received.lock().is_empty());
    sink.put(record()).await.unwrap();
    assert_eq!(fake.received.lock().len(), 1);
}

#[tokio::test]
async fn webhook_posts_nothing_without_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let path = root.join("secret");
    std::fs::write(&path, "key").unwrap();
    let secret = SecretFile::open(&root, path.clone()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let url = "http://127.0.0.1:9/".parse().unwrap();
    let http = HttpTransport::new("w", url, Some(secret), Duration::from_secs(1), true).unwrap();
    let PostOutcome::Retry(problem) = http.post(Bytes::new()).await else {
        panic!("posted without a signature")
    };
    assert!(problem.contains(path.to_str().unwrap()), "{problem}");
}

#[test]
fn webhook_secret_is_checked_when_the_hook_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::write(root.join("large"), vec![0; 4_097]).unwrap();
    let access = HookAccess::new(None, Some(&root), true, &[]).unwrap();
    let home = HookHome { role: "data", node_id: NodeId(101) };
    let make = |access: &HookAccess, secret_file: PathBuf| {
        let spec = HookSpec {
            name: "w".to_owned(),
            kind: "webhook".to_owned(),
            config: json!({ "url": "http://127.0.0.1:9/", "secret_file": secret_file }),
            durable: true,
            generation: 0,
        };
        Webhook { access: access.clone() }.make(&spec, home).map(|_| ())
    };
    for (path, expected) in [
        (root.join("large"), "more than 4096 bytes"),
        (root.join("missing"), "No such file"),
        (PathBuf::from("/dev/zero"), "is outside of"),
        (PathBuf::from("/etc/hostname"), "is outside of"),
    ] {
        let error = make(&access, path).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = make(&HookAccess::default(), root.join("large")).unwrap_err();
    assert!(error.contains("--hook-secret-dir"), "{error}");
}

#[tokio::test]
async fn webhook_by_name_reaches_private_addresses_only_if_allowed() {
    let (url, task) = receiver(&[200]).await;
    let url: Url = url.replace("127.0.0.1", "localhost").parse().unwrap();
    let post = |allow_private| {
        let second = Duration::from_secs(10);
        let http = HttpTransport::new("w", url.clone(), None, second, allow_private).unwrap();
        async move { http.post(Bytes::from("{}")).await }
    };
    let PostOutcome::Retry(problem) = post(false).await else { panic!("posted to localhost") };
    assert!(problem.contains("--allow-private-webhooks"), "{problem}");
    assert_eq!(post(true).await, PostOutcome::Accepted);
    assert_eq!(task.await.unwrap().len(), 1);
}
