//! A receiver that is down, and one that speaks HTTP.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tidewater_common::ids::{NodeId, RegionId};
use tidewater_region_engine::hooks::{FilesRemoved, RemovalReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::transport::{Answer, Transport, signature};
use super::*;
use crate::narrator::Outlet;

/// Takes what it gets while it is up.
#[derive(Debug, Clone, Default)]
struct Fake {
    up: Arc<AtomicBool>,
    got: Arc<Mutex<Vec<Bytes>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

#[async_trait]
impl Transport for Fake {
    async fn post(&self, body: Bytes) -> Answer {
        if !self.up.load(Ordering::SeqCst) {
            return Answer::Again("down".to_owned());
        }
        if let Some(answer) = self.answers.lock().pop_front() {
            return answer;
        }
        self.got.lock().push(body);
        Answer::Taken
    }
}

async fn until(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(3_600), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it did not come to pass");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_down_for_an_hour_costs_bounded_memory() {
    let fake = Fake::default();
    let mailbox = Mailbox::new("w", fake.clone(), 100, QUEUE_BYTES);
    let mut refused = 0;
    for number in 0..3_600 {
        if mailbox.push(Bytes::from(format!("{number}"))).is_err() {
            refused += 1;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(mailbox.backlog() <= 100);
    }
    assert_eq!((mailbox.backlog(), refused), (100, 3_500));
    fake.up.store(true, Ordering::SeqCst);
    until(|| mailbox.backlog() == 0).await;
    let expected: Vec<_> = (0..100).map(|number| Bytes::from(format!("{number}"))).collect();
    assert_eq!(*fake.got.lock(), expected);
    mailbox.push(Bytes::from("later")).unwrap();
    until(|| mailbox.backlog() == 0).await;
    assert_eq!((fake.got.lock().len(), mailbox.lost()), (101, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_refuses_is_counted_and_holds_nothing_up() {
    let fake = Fake::default();
    fake.up.store(true, Ordering::SeqCst);
    fake.answers.lock().push_back(Answer::Refused("gone".to_owned()));
    let mailbox = Mailbox::new("w", fake.clone(), 100, QUEUE_BYTES);
    mailbox.push(Bytes::from("first")).unwrap();
    mailbox.push(Bytes::from("second")).unwrap();
    until(|| mailbox.backlog() == 0).await;
    assert_eq!(*fake.got.lock(), ["second"]);
    assert_eq!(mailbox.lost(), 1);
}

/// Answers with one status after another; gives back the requests, header and body.
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

fn whole(text: &str) -> bool {
    let Some((header, body)) = text.split_once("\r\n\r\n") else { return false };
    header_of(header, "content-length").is_some_and(|length| length == body.len().to_string())
}

fn header_of<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)?.1.into())
}

#[tokio::test]
async fn calls_are_posted_signed_and_again_until_they_are_taken() {
    let (url, task) = receiver(&[503, 200]).await;
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "Jefe\n").unwrap();
    let spec = HookSpec {
        name: "mirror".to_owned(),
        kind: "webhook".to_owned(),
        config: json!({ "url": url, "secret_file": secret_file }),
        durable: false,
        generation: 0,
    };
    let hook = Webhook.make(&spec, HookHome { role: "data", node_id: NodeId(101) }).unwrap();
    let removed = FilesRemoved { files: Vec::new(), reason: RemovalReason::Drop };
    hook.on_files_removed(RegionId(7), &removed).await.unwrap();
    let requests = tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
    assert_eq!(requests[0], requests[1], "the repeat is another request");
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
async fn a_durable_hook_has_what_it_took_and_says_so_when_it_has_not() {
    let fake = Fake::default();
    let direct = Direct::new(fake.clone());
    let record = || {
        let home = HookHome { role: "data", node_id: NodeId(101) };
        crate::record::Record::new("w", home, "files_removed", RegionId(7))
    };
    assert!(direct.put(record()).await.is_err(), "the receiver is down");
    fake.up.store(true, Ordering::SeqCst);
    // What a hook with a queue would give up.
    fake.answers.lock().push_back(Answer::Refused("no".to_owned()));
    assert!(direct.put(record()).await.is_err());
    assert!(fake.got.lock().is_empty());
    direct.put(record()).await.unwrap();
    assert_eq!(fake.got.lock().len(), 1);
}

#[tokio::test]
async fn without_its_secret_nothing_is_sent() {
    let http = Http::new(
        "w",
        "http://127.0.0.1:9/".parse().unwrap(),
        Some(PathBuf::from("/nonexistent/secret")),
        Duration::from_secs(1),
    )
    .unwrap();
    let Answer::Again(problem) = http.post(Bytes::new()).await else { panic!("it was sent") };
    assert!(problem.contains("/nonexistent/secret"), "{problem}");
}
