//! Recording of the cluster of an earlier release.

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use tidewater_cluster_tests::{HarnessError, Result, binary};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::{EARLIER, plan, recording, steps, stop};

/// Files with the messages of logs and rows.
const FILES: [&str; 2] = ["tidewater/v1/command.proto", "tidewater/v1/group_log.proto"];

/// Not a test: replaces `release.zip`.
#[ignore = "records the cluster of an earlier release: scripts/upgrade-test --record"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn earlier_release_is_recorded() -> Result<()> {
    let earlier = binary::earlier()?;
    let mut cluster = plan().prepare().await?;
    for node in cluster.meta.iter_mut().chain(&mut cluster.data) {
        node.set_binary(earlier.clone());
    }
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    steps::run(&cluster, EARLIER).await?;
    let messages = messages(&cluster.meta[0].spec.listen.to_string()).await?;
    stop(&mut cluster).await?;
    recording::replace(cluster.directory(), &["nodes", "store"], &messages)?;
    cluster.finish().await
}

/// Asks a node for the descriptors of its messages.
async fn messages(address: &str) -> Result<FileDescriptorSet> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(failed)?;
    let mut client = ServerReflectionClient::new(endpoint.connect_lazy());
    let mut files = BTreeMap::new();
    let mut wanted: Vec<String> = FILES.map(str::to_owned).into();
    while let Some(name) = wanted.pop() {
        if files.contains_key(&name) {
            continue;
        }
        let file = descriptor(&mut client, &name).await?;
        wanted.extend(file.dependency.iter().cloned());
        files.insert(name, file);
    }
    Ok(FileDescriptorSet { file: files.into_values().collect() })
}

async fn descriptor(
    client: &mut ServerReflectionClient<Channel>,
    name: &str,
) -> Result<FileDescriptorProto> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileByFilename(name.to_owned())),
    };
    let answers = client.server_reflection_info(futures::stream::iter([request])).await;
    let answer = answers.map_err(failed)?.into_inner().message().await.map_err(failed)?;
    match answer.and_then(|answer| answer.message_response) {
        Some(MessageResponse::FileDescriptorResponse(found)) => {
            let file = found.file_descriptor_proto.first().map(Vec::as_slice).unwrap_or_default();
            FileDescriptorProto::decode(file).map_err(failed)
        }
        other => Err(failed(format!("no descriptor of {name}: {other:?}"))),
    }
}

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(format!("descriptors of the node: {}", error.to_string()))
}
