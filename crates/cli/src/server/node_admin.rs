//! The `NodeAdmin` service of every node.

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::node_admin_server::NodeAdmin;
use tidewater_proto::v1::{Reason, SetLogFilterRequest, SetLogFilterResponse};
use tonic::{Request, Response, Status};

use super::logs::LogFilter;

/// `NodeAdmin` service: changes the log filter of the process.
#[derive(Debug, Clone)]
pub(crate) struct NodeAdminService {
    pub(crate) logs: LogFilter,
}

#[tonic::async_trait]
impl NodeAdmin for NodeAdminService {
    async fn set_log_filter(
        &self,
        request: Request<SetLogFilterRequest>,
    ) -> Result<Response<SetLogFilterResponse>, Status> {
        let filter = request.into_inner().filter;
        let previous = self
            .logs
            .set(&filter)
            .map_err(|problem| Refusal::new(Reason::InvalidArgument, problem))?;
        tracing::info!(%filter, %previous, "log filter changed");
        Ok(Response::new(SetLogFilterResponse { previous }))
    }
}
