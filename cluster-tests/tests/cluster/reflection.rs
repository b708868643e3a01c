//! gRPC server reflection: each kind of node lists all services, in both versions of the protocol.

use std::collections::BTreeSet;
use std::path::Path;

use tidewater_cluster_tests::cluster::ClusterPlan;
use tidewater_cluster_tests::{HarnessError, Result};
use tonic::transport::{Channel, Endpoint};

use crate::commands::standalone::Standalone;
use crate::commands::{check, check_equal};

/// Declares a function that lists the services with one version of the protocol.
macro_rules! list_services {
    ($function:ident, $version:ident) => {
        async fn $function(channel: Channel) -> Result<BTreeSet<String>> {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let failed = |status| HarnessError::violated(format!("no reflection: {status}"));
            let mut client = ServerReflectionClient::new(channel);
            let stream = futures::stream::iter([request]);
            let mut answers =
                client.server_reflection_info(stream).await.map_err(failed)?.into_inner();
            let answer = answers.message().await.map_err(failed)?;
            match answer.and_then(|answer| answer.message_response) {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    Ok(list.service.into_iter().map(|service| service.name).collect())
                }
                other => Err(HarnessError::violated(format!("no list of services: {other:?}"))),
            }
        }
    };
}

list_services!(services_v1, v1);
list_services!(services_v1alpha, v1alpha);

/// Reads the names of all services from the `.proto` files.
fn declared_services() -> Result<BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tidewater");
    let mut services = BTreeSet::from(["grpc.health.v1.Health".to_owned()]);
    for directory in ["v1", "compaction/v1"] {
        let files = std::fs::read_dir(root.join(directory)).map_err(HarnessError::io("list"))?;
        for file in files {
            let path = file.map_err(HarnessError::io("list"))?.path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(HarnessError::io("read"))?;
            let package = text.lines().find_map(|line| line.strip_prefix("package "));
            let package = package.unwrap_or_default().trim_end_matches(';').to_owned();
            let names = text.lines().filter_map(|line| line.strip_prefix("service "));
            services.extend(
                names.map(|name| format!("{package}.{}", name.trim_end_matches(['{', ' ']))),
            );
        }
    }
    Ok(services)
}

async fn check_services(node: &str, address: &str) -> Result<()> {
    let declared = declared_services()?;
    check("services are declared", declared.len() > 8)?;
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| HarnessError::violated(error.to_string()))?
        .connect_lazy();
    for (version, found) in
        [("v1", services_v1(channel.clone()).await?), ("v1alpha", services_v1alpha(channel).await?)]
    {
        let missing: Vec<_> = declared.difference(&found).collect();
        check_equal(&format!("services that {node} lacks in {version}"), missing, Vec::new())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_kind_lists_all_services_in_both_versions() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 1).start().await?;
    for node in [&cluster.meta[0], &cluster.data[0], &cluster.compactors[0]] {
        check_services(&node.spec.name, &node.spec.advertise.to_string()).await?;
    }
    cluster.finish().await?;
    let mut standalone = Standalone::start().await?;
    check_services("standalone", &standalone.address).await?;
    standalone.node.terminate().await?;
    standalone.cluster.finish().await
}
