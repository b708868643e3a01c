//! Tests of the shared server process, with a compactor that waits for unreachable meta nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const LIMIT: Duration = Duration::from_secs(30);

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let address = free_address();
        let child = Command::new(env!("CARGO_BIN_EXE_tidewater"))
            .args(["compactor", "--object-store", "memory:///"])
            .args(["--listen", &address.to_string(), "--meta", &free_address().to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address };
        let until = Instant::now() + LIMIT;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "the server does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.address);
        Endpoint::from_shared(url).unwrap().connect().await.unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn wait_for_exit(&mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn health(server: &Server) -> i32 {
    let mut client = HealthClient::new(server.channel().await);
    client.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner().status
}

#[tokio::test]
async fn health_and_reflection_answer_before_joining_a_cluster() {
    let server = Server::start();
    assert_eq!(health(&server).await, i32::from(ServingStatus::NotServing));
    let mut client = ServerReflectionClient::new(server.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = tokio_stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["tidewater.v1.Data", "tidewater.v1.Admin", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn services_are_unavailable_while_the_node_starts() {
    use tidewater_common::refusal::Refusal;
    use tidewater_proto::v1::{ClusterStatusRequest, Reason, admin_client::AdminClient};
    let server = Server::start();
    let mut client = AdminClient::new(server.channel().await);
    let status = client.cluster_status(ClusterStatusRequest {}).await.unwrap_err();
    let refusal = Refusal::from_status(&status);
    assert_eq!(refusal.reason, Reason::Unavailable);
    assert!(refusal.retry_after.is_some());
}

#[tokio::test]
async fn server_survives_garbage_on_its_port() {
    let server = Server::start();
    for garbage in
        [&b"\x00\xff\x00\xff\x00\xff garbage \r\n\r\n"[..], b"GET", b"PRI * HTTP/2.0\r\n\r\nXX"]
    {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(garbage).unwrap();
        drop(stream);
    }
    let mut flood = TcpStream::connect(server.address).unwrap();
    // The server may close the connection at any byte.
    let _ = flood.write_all(&vec![0xa5; 1 << 20]);
    assert_eq!(health(&server).await, i32::from(ServingStatus::NotServing));
    assert!(server.metrics().starts_with("HTTP/1.1 200 OK"), "{}", server.metrics());
}

#[test]
fn stop_signal_exits_with_zero() {
    for name in ["TERM", "INT"] {
        let mut server = Server::start();
        server.signal(name);
        assert_eq!(server.wait_for_exit().code(), Some(0), "{name}");
        let mut stdout = String::new();
        server.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        assert!(!stdout.contains("ready"), "the server was never ready: {stdout}");
    }
}
