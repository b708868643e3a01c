//! Calls to other data nodes.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::header::CallSender;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::group_control_client::GroupControlClient;
use tidewater_proto::v1::{Reason, RequestFlushRequest};
use tidewater_rpc::{AddressBook, Channels, ConnectPolicy, attempt, timed};
use tonic::transport::Channel;

/// Limit of a call.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Client of other data nodes, by node id. Clones share connections.
#[derive(Debug, Clone)]
pub struct Peers {
    sender: CallSender,
    addresses: Arc<AddressBook>,
    channels: Arc<Channels>,
}

impl Peers {
    /// Creates a client for this node of a cluster.
    pub fn new(cluster: ClusterId, node: NodeId, addresses: Arc<AddressBook>) -> Self {
        let sender = CallSender { cluster, node };
        Self { sender, addresses, channels: Arc::new(Channels::new(ConnectPolicy::CONTROL)) }
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
        let request = RequestFlushRequest {
            header: Some(self.sender.header(owner)),
            group_id: group.get(),
            over_bytes,
        };
        let call = client.request_flush(timed(request, TIMEOUT));
        attempt(format!("node {owner}"), TIMEOUT, call).await?;
        Ok(())
    }

    fn channel(&self, node: NodeId) -> Result<Channel, Refusal> {
        let address = self.addresses.get(node).ok_or_else(|| {
            Refusal::new(Reason::NodeNotFound, format!("the address of node {node} is not known"))
        })?;
        self.channels.to(&address)
    }
}
