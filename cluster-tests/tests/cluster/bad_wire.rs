//! Malformed and invalid requests.

use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::direct::{NodeClient, RegionRef, expect_refusal};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_proto::v1::{Reason, WriteRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::conclude;

const DEADLINE: Duration = Duration::from_secs(20);

async fn started() -> Result<(Cluster, Workload)> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    Ok((cluster, load))
}

fn expect(reason: Reason, expected: &[Reason]) -> Result<()> {
    if expected.contains(&reason) {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("failed with {reason:?}, expected {expected:?}")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_rejects_unknown_group_and_region() -> Result<()> {
    let (cluster, load) = started().await?;
    let region = cluster.region(LOG_TABLE).await?;
    let node = NodeClient::new(cluster.data[0].spec.listen, DEADLINE)?;
    let other = RegionRef { group_id: 4_711, ..region };
    expect(expect_refusal(node.count(other).await)?.reason, &[Reason::GroupNotHosted])?;
    expect(expect_refusal(node.open_producer(other).await)?.reason, &[Reason::GroupNotHosted])?;
    let unknown = RegionRef { region_id: 4_711, ..region };
    expect(expect_refusal(node.count(unknown).await)?.reason, &[Reason::RegionNotFound])?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_node_rejects_message_above_the_size_limit() -> Result<()> {
    let (cluster, load) = started().await?;
    let region = cluster.region(LOG_TABLE).await?;
    let node = NodeClient::new(cluster.data[0].spec.listen, DEADLINE)?;
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
    expect(expect_refusal(node.write(write).await)?.reason, &[Reason::MessageTooLarge])?;
    conclude(cluster, load).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_survive_garbage_on_their_ports() -> Result<()> {
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
            // The node may close the connection while the test is sending.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        }
    }
    load.progress(20).await?;
    cluster.wait_until_healthy().await?;
    conclude(cluster, load).await?;
    Ok(())
}
