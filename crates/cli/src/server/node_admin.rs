//! The `NodeAdmin` service of every node.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::node_admin_server::NodeAdmin;
use tidewater_proto::v1::{Reason, SetLogFilterRequest, SetLogFilterResponse};
use tonic::{Request, Response, Status};

use super::logs::LogFilter;

/// `NodeAdmin` service: changes the log filter of the process.
#[derive(Debug, Clone)]
pub(crate) struct NodeAdminService {
    pub(crate) logs: LogFilter,
    /// Accept calls from other machines, not only from this one.
    pub(crate) remote: bool,
    /// Advertised address of the process, HOST:PORT.
    pub(crate) address: String,
    /// Recorder of the calls, once the process has one.
    pub(crate) calls: Arc<OnceLock<RecordedCalls>>,
}

impl NodeAdminService {
    /// Sets a log filter for a caller at this address; returns the previous one.
    fn set_filter(&self, peer: Option<SocketAddr>, filter: &str) -> Result<String, Refusal> {
        check_caller(peer, self.remote)?;
        let previous = self
            .logs
            .set(filter)
            .map_err(|problem| Refusal::new(Reason::InvalidArgument, problem))?;
        tracing::info!(%filter, %previous, "log filter changed");
        Ok(previous)
    }
}

/// Checks that a caller may change the log filter: without authorization, only callers on the machine
/// of the node may, unless the operator allows others. `peer`: address of the caller.
fn check_caller(peer: Option<SocketAddr>, remote: bool) -> Result<(), Refusal> {
    if remote || peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::InvalidArgument,
        "this node changes its log filter for callers on its own machine only: call it there, or \
         start it with --remote-log-filter",
    ))
}

#[tonic::async_trait]
impl NodeAdmin for NodeAdminService {
    async fn set_log_filter(
        &self,
        request: Request<SetLogFilterRequest>,
    ) -> Result<Response<SetLogFilterResponse>, Status> {
        let call = self.calls.get().map(|calls| calls.begin(&request).at_node(&self.address));
        let set = self.set_filter(request.remote_addr(), &request.get_ref().filter);
        let previous = match call {
            Some(call) => call.end(set)?,
            None => set?,
        };
        Ok(Response::new(SetLogFilterResponse { previous }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_callers_change_the_log_filter() {
        for (peer, expected) in [
            (Some("127.0.0.1:5000"), true),
            (Some("[::1]:5000"), true),
            (Some("[::ffff:127.0.0.1]:5000"), true),
            (Some("10.0.0.1:5000"), false),
            (None, false),
        ] {
            let address = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(check_caller(address, false).is_ok(), expected, "{peer:?}");
            assert!(check_caller(address, true).is_ok());
        }
    }
}
