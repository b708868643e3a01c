//! Implementation of the proto service `MetaMembers`: descriptions of meta nodes, for their leader.

use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_members_server::{MetaMembers, MetaMembersServer};
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status};

use super::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};

/// Description of this meta node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemberService {
    pub(crate) node_id: NodeId,
    /// The cluster's level is not raised above this one while the node is a member.
    pub(crate) max_level: Option<FeatureLevel>,
}

impl MemberService {
    pub(crate) fn into_server(self) -> MetaMembersServer<Self> {
        MetaMembersServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES)
    }

    fn describe(self, target: NodeId) -> Result<v1::DescribeMemberResponse, Refusal> {
        if target != self.node_id {
            let text = format!("this is meta node {}, not {target}", self.node_id);
            return Err(Refusal::new(Reason::WrongNode, text));
        }
        Ok(v1::DescribeMemberResponse {
            node_id: self.node_id.get(),
            release: Some((&Release::own()).into()),
            max_level: self.max_level.map_or(0, FeatureLevel::get),
        })
    }
}

#[tonic::async_trait]
impl MetaMembers for MemberService {
    async fn describe_member(
        &self,
        request: Request<v1::DescribeMemberRequest>,
    ) -> Result<Response<v1::DescribeMemberResponse>, Status> {
        Ok(Response::new(self.describe(NodeId(request.into_inner().target_node))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_describes_only_itself() {
        let service = MemberService { node_id: NodeId(2), max_level: Some(FeatureLevel::FIRST) };
        let described = service.describe(NodeId(2)).unwrap();
        assert_eq!((described.node_id, described.max_level), (2, 1));
        assert_eq!(described.release, Some((&Release::own()).into()));
        assert_eq!(service.describe(NodeId(3)).unwrap_err().reason, Reason::WrongNode);
    }
}
