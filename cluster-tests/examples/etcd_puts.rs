//! Puts per second of an etcd cluster, measured as `tidewater bench meta` measures catalog commands:
//! `etcd_puts SECONDS CLIENTS[,CLIENTS...] ADDRESS...`. Clients are spread over the addresses.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const VALUE_BYTES: usize = 256;

/// `etcdserverpb.PutRequest`, as far as it is used here.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`; its content does not matter.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().ok_or("SECONDS is missing")?.parse()?;
    let clients = args.next().ok_or("CLIENTS is missing")?;
    let addresses: Vec<String> = args.collect();
    for clients in clients.split(',') {
        let clients: usize = clients.parse()?;
        let (puts, time) = measure(clients, Duration::from_secs(seconds), &addresses).await?;
        println!("etcd: {clients} clients, {:.0} puts/s", puts as f64 / time.as_secs_f64());
    }
    Ok(())
}

async fn measure(
    clients: usize,
    duration: Duration,
    addresses: &[String],
) -> Result<(u64, Duration), AnyError> {
    let mut tasks: JoinSet<Result<u64, AnyError>> = JoinSet::new();
    let begun = Instant::now();
    for (client, address) in addresses.iter().cycle().take(clients).enumerate() {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
        tasks.spawn(async move {
            let mut puts = 0;
            while begun.elapsed() < duration {
                put(channel.clone(), format!("{client}/{puts}")).await?;
                puts += 1;
            }
            Ok(puts)
        });
    }
    let mut puts = 0;
    while let Some(done) = tasks.join_next().await {
        puts += done??;
    }
    Ok((puts, begun.elapsed()))
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
