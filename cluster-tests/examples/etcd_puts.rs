//! Measures puts per second of an etcd cluster in the same way as `tidewater bench meta` measures
//! catalog commands: `etcd_puts SECONDS CLIENTS[,CLIENTS...] ADDRESS...`. All clients call the leader,
//! as Tidewater's clients do. Prints a JSON object for each number of clients.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const VALUE_BYTES: usize = 256;

/// `etcdserverpb.PutRequest`, only the fields in use.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`; its fields are not used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// `etcdserverpb.StatusRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// `etcdserverpb.StatusResponse`, only the fields in use.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// `etcdserverpb.ResponseHeader`, only the fields in use.
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().ok_or("SECONDS is missing")?.parse()?;
    let clients = args.next().ok_or("CLIENTS is missing")?;
    let addresses: Vec<String> = args.collect();
    let leader = leader(&addresses).await?;
    for clients in clients.split(',') {
        measure(clients.parse()?, Duration::from_secs(seconds), &leader).await?;
    }
    Ok(())
}

fn endpoint(address: &str) -> Result<Endpoint, AnyError> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true))
}

async fn leader(addresses: &[String]) -> Result<Endpoint, AnyError> {
    for address in addresses {
        let mut client = Grpc::new(endpoint(address)?.connect().await?);
        client.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
        let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
        let status = client.unary(tonic::Request::new(StatusRequest {}), path, codec).await?;
        let StatusResponse { header, leader } = status.into_inner();
        if leader != 0 && header.is_some_and(|header| header.member_id == leader) {
            return endpoint(address);
        }
    }
    Err("there is no leader".into())
}

async fn measure(clients: usize, duration: Duration, leader: &Endpoint) -> Result<(), AnyError> {
    let mut tasks: JoinSet<Result<Vec<Duration>, AnyError>> = JoinSet::new();
    let begun = Instant::now();
    for client in 0..clients {
        let channel = leader.connect_lazy();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < duration {
                let sent = Instant::now();
                put(channel.clone(), format!("{client}/{}", times.len())).await?;
                times.push(sent.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let ms = |index: usize| times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let median = ms(times.len() / 2);
    let p99 = ms(times.len() * 99 / 100);
    println!(
        r#"{{"clients":{clients},"rows_per_second":{rate:.0},"p50":{median:.3},"p99":{p99:.3}}}"#
    );
    Ok(())
}

async fn put(channel: Channel, key: String) -> Result<(), AnyError> {
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let request = PutRequest { key: key.into_bytes(), value: vec![7; VALUE_BYTES] };
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    client.unary(tonic::Request::new(request), path, codec).await?;
    Ok(())
}
