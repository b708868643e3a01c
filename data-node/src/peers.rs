//! Calls to other data nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::group_control_client::GroupControlClient;
use tidewater_proto::v1::{CallHeader, Reason, RequestFlushRequest};
use tidewater_raft_store::AddressBook;
use tonic::transport::{Channel, Endpoint};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Client of other data nodes, by node id. Clones share connections.
#[derive(Debug, Clone)]
pub struct Peers {
    cluster: ClusterId,
    node: NodeId,
    addresses: Arc<AddressBook>,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Peers {
    /// Creates a client for this node of a cluster.
    pub fn new(cluster: ClusterId, node: NodeId, addresses: Arc<AddressBook>) -> Self {
        Self { cluster, node, addresses, channels: Arc::default() }
    }

    /// Returns a node's address, if known.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.addresses.get(node)
    }

    /// Asks the owner of a group's regions to flush this number of bytes.
    pub async fn request_flush(
        &self,
        owner: NodeId,
        group: GroupId,
        over_bytes: u64,
    ) -> Result<(), Refusal> {
        let mut client = GroupControlClient::new(self.channel(owner)?);
        let mut request = tonic::Request::new(RequestFlushRequest {
            header: Some(CallHeader {
                cluster_id: self.cluster.to_string(),
                source_node: self.node.get(),
                target_node: owner.get(),
                catalog_revision: 0,
            }),
            group_id: group.get(),
            over_bytes,
        });
        request.set_timeout(TIMEOUT);
        client.request_flush(request).await?;
        Ok(())
    }

    fn channel(&self, node: NodeId) -> Result<Channel, Refusal> {
        let unknown = || {
            Refusal::new(Reason::NodeNotFound, format!("the address of node {node} is not known"))
        };
        let address = self.addresses.get(node).ok_or_else(unknown)?;
        if let Some(channel) = self.channels.lock().get(&address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            Refusal::new(
                Reason::InvalidArgument,
                format!("address {address} of node {node} is invalid: {error}"),
            )
        })?;
        let channel = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy();
        self.channels.lock().insert(address, channel.clone());
        Ok(channel)
    }
}
