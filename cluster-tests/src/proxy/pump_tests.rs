use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::node::Pids;
use crate::proxy::{Party, Proxy, Rule, Rules};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(150);

/// A connection of a client through a proxy to a server, with both ends in this test.
struct ProxiedConnection {
    rules: Rules,
    client: TcpStream,
    server: TcpStream,
    _proxy: Proxy,
}

impl ProxiedConnection {
    async fn open() -> Self {
        let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rules = Rules::default();
        let proxy = Proxy::start(
            front,
            Party::node("server"),
            behind.local_addr().unwrap(),
            rules.clone(),
            Pids::default(),
        )
        .unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        let (server, _) = timeout(LONG, behind.accept()).await.unwrap().unwrap();
        Self { rules, client, server, _proxy: proxy }
    }

    fn set(&self, rule: Rule) {
        self.rules.change(|table| table.set(Party::Client, Party::node("server"), rule));
    }
}

async fn read_byte(stream: &mut TcpStream, limit: Duration) -> Option<u8> {
    let mut byte = [0];
    match timeout(limit, stream.read(&mut byte)).await {
        Ok(Ok(1)) => Some(byte[0]),
        _ => None,
    }
}

#[tokio::test]
async fn held_bytes_arrive_when_the_rule_ends() {
    let mut line = ProxiedConnection::open().await;
    line.set(Rule::Hold);
    line.client.write_all(b"a").await.unwrap();
    assert_eq!(read_byte(&mut line.server, SHORT).await, None);
    line.rules.heal();
    assert_eq!(read_byte(&mut line.server, LONG).await, Some(b'a'));
}

#[tokio::test]
async fn cut_rule_closes_open_and_new_connections() {
    let mut line = ProxiedConnection::open().await;
    line.set(Rule::Cut);
    let mut byte = [0];
    assert_eq!(timeout(LONG, line.client.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
    let mut again = TcpStream::connect(line._proxy.address()).await.unwrap();
    assert_eq!(timeout(LONG, again.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn lose_answers_rule_forwards_only_requests() {
    let mut line = ProxiedConnection::open().await;
    line.set(Rule::LoseAnswers);
    line.client.write_all(b"a").await.unwrap();
    assert_eq!(read_byte(&mut line.server, LONG).await, Some(b'a'));
    line.server.write_all(b"b").await.unwrap();
    assert_eq!(read_byte(&mut line.client, SHORT).await, None);
    line.rules.heal();
    let mut byte = [0];
    assert_eq!(timeout(LONG, line.client.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn delayed_bytes_arrive_later() {
    let mut line = ProxiedConnection::open().await;
    line.set(Rule::Delay(SHORT * 2));
    line.client.write_all(b"a").await.unwrap();
    assert_eq!(read_byte(&mut line.server, SHORT).await, None);
    assert_eq!(read_byte(&mut line.server, LONG).await, Some(b'a'));
}
