//! Service `GroupControl`: calls of the meta leader and of other data nodes. Calls that contradict the
//! catalog are refused, counted, and logged at a bounded rate.

mod change_membership;
mod checks;
mod regions;
mod request_flush;
pub(crate) mod settle;
mod start_group;
mod stop_replica;
mod transfer_leader;

pub(crate) use self::transfer_leader::transfer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::header::check_header;
use tidewater_common::log_rate::LogRate;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::group_control_server::{GroupControl, GroupControlServer};
use tidewater_proto::v1::{self, CallHeader};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::catalog::CatalogRecords;
use crate::groups::Groups;
use crate::meters;

/// Time between two lines of the log about refused calls.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

/// The gRPC service `GroupControl` of a node.
#[derive(Debug, Clone)]
pub struct ControlService {
    groups: Arc<Groups>,
    refusals: Arc<LogRate>,
}

impl ControlService {
    /// Creates the service for a node's groups.
    pub fn new(groups: Arc<Groups>) -> Self {
        Self { groups, refusals: Arc::new(LogRate::new(LOG_INTERVAL)) }
    }

    /// Wraps the service for tonic.
    pub fn into_server(self) -> GroupControlServer<Self> {
        GroupControlServer::new(self)
    }

    /// Refuses a call for another node, and one that contradicts the catalog.
    async fn check<T>(
        &self,
        call: &'static str,
        (header, request): (Option<&CallHeader>, &T),
        from: Option<SocketAddr>,
        check: Option<fn(&CatalogRecords, &T) -> checks::Checked>,
    ) -> Result<(), Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, header)?;
        let Some(check) = check else { return Ok(()) };
        let revision = header.map_or(0, |header| header.catalog_revision);
        let checked = node.catalog.check(revision, |catalog| check(catalog, request)).await;
        if let Err(problem) = &checked {
            meters::count_refused_call(call);
            if let Some(count) = self.refusals.due(Instant::now().into_std()) {
                let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
                warn!(call, %from, count, %problem, "refused a call that contradicts the catalog");
            }
        }
        checked
    }
}

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident, $call:path, $check:expr;)*) => {
        #[tonic::async_trait]
        impl GroupControl for ControlService {
            $(
                async fn $name(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let from = request.remote_addr();
                    let request = request.into_inner();
                    let checked = (request.header.as_ref(), &request);
                    self.check(stringify!($name), checked, from, $check).await?;
                    Ok(Response::new($call(&self.groups, request).await?))
                }
            )*
        }
    };
}

calls! {
    start_group: StartGroupRequest => StartGroupResponse, start_group::call, Some(checks::start_group);
    change_membership: ChangeMembershipRequest => ChangeMembershipResponse, change_membership::call,
        Some(checks::change_membership);
    transfer_leader: TransferLeaderRequest => TransferLeaderResponse, transfer_leader::call, None;
    stop_replica: StopReplicaRequest => StopReplicaResponse, stop_replica::call, None;
    open_region: OpenRegionRequest => OpenRegionResponse, regions::open, Some(checks::open);
    alter_region: AlterRegionRequest => AlterRegionResponse, regions::alter, Some(checks::alter);
    truncate_region: TruncateRegionRequest => TruncateRegionResponse, regions::truncate,
        Some(checks::truncate);
    open_area: OpenAreaRequest => OpenAreaResponse, regions::open_area, Some(checks::open_area);
    close_area: CloseAreaRequest => CloseAreaResponse, regions::close_area, Some(checks::close_area);
    copy_region: CopyRegionRequest => CopyRegionResponse, regions::copy, Some(checks::copy);
    drop_region: DropRegionRequest => DropRegionResponse, regions::drop, Some(checks::drop);
    request_flush: RequestFlushRequest => RequestFlushResponse, request_flush::call, None;
}
