//! Records of groups, read from the meta leader before a replica is stopped.

use tidewater_common::ids::{ClusterId, GroupId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Group, ReadGroupRequest};
use tidewater_rpc::MetaLink;

/// Source of the meta group's records of groups.
#[tonic::async_trait]
pub trait GroupRecords: std::fmt::Debug + Send + Sync {
    /// Returns a group's record, linearizably; `None`: the cluster has no such group.
    async fn read(&self, group: GroupId) -> Result<Option<Group>, Refusal>;
}

/// Records of the meta service.
#[derive(Debug)]
pub struct MetaGroupRecords {
    link: MetaLink,
    cluster: ClusterId,
}

impl MetaGroupRecords {
    /// Creates a reader of a cluster's records.
    pub fn new(link: MetaLink, cluster: ClusterId) -> Self {
        Self { link, cluster }
    }
}

#[tonic::async_trait]
impl GroupRecords for MetaGroupRecords {
    async fn read(&self, group: GroupId) -> Result<Option<Group>, Refusal> {
        let cluster_id = self.cluster.to_string();
        let request = ReadGroupRequest { cluster_id, group_id: group.get() };
        Ok(self.link.read_group(&request).await?.group)
    }
}
