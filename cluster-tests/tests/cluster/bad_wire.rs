//! Requests that no well-behaved client sends.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, Plan};
use tidewater_cluster_tests::direct::{Direct, RegionRef, refusal_of};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_proto::v1::{Reason, WriteRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::conclude;

const SOON: Duration = Duration::from_secs(20);

async fn started() -> Result<(Cluster, Workload)> {
    let cluster = Plan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, Load::default()).await?;
    Ok((cluster, load))
}

fn expect(reason: Reason, wanted: &[Reason]) -> Result<()> {
    if wanted.contains(&reason) {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("refused as {reason:?}, not as {wanted:?}")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_the_node_does_not_host_is_refused() -> Result<()> {
    let (cluster, load) = started().await?;
    let region = cluster.region(LOG_TABLE).await?;
    let node = Direct::to(cluster.data[0].spec.listen, SOON)?;
    let other = RegionRef { group_id: 4_711, ..region };
    expect(refusal_of(node.count(other).await)?.reason, &[Reason::GroupNotHosted])?;
    expect(refusal_of(node.open_producer(other).await)?.reason, &[Reason::GroupNotHosted])?;
    let unknown = RegionRef { region_id: 4_711, ..region };
    expect(refusal_of(node.count(unknown).await)?.reason, &[Reason::RegionNotFound])?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_is_refused() -> Result<()> {
    let (cluster, load) = started().await?;
    let region = cluster.region(LOG_TABLE).await?;
    let node = Direct::to(cluster.data[0].spec.listen, SOON)?;
    let write = WriteRequest {
        group_id: region.group_id,
        region_id: region.region_id,
        catalog_version: region.catalog_version,
        schema_version: region.schema_version,
        producer_id: vec![7; 16].into(),
        serial: 1,
        origin_region_id: region.region_id,
        row_count: 1,
        rows: vec![0; 200 << 20].into(),
        ..WriteRequest::default()
    };
    expect(refusal_of(node.write(write).await)?.reason, &[Reason::MessageTooLarge])?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_ports_is_survived() -> Result<()> {
    let (cluster, load) = started().await?;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        noise.clone(),
        [preface, noise].concat(),
        Vec::new(),
    ];
    for address in [cluster.meta[0].spec.listen, cluster.data[0].spec.listen] {
        for bytes in &cases {
            let mut stream = TcpStream::connect(address)
                .await
                .map_err(HarnessError::io(format!("connect to {address}")))?;
            // The node may close while we still send: that is its right.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        }
    }
    load.progress(20).await?;
    cluster.healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
