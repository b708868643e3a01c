//! Service `GroupControl`: calls of the meta leader and of other data nodes. Calls that contradict the
//! catalog or the group are refused, counted, and logged at a bounded rate.

mod change_membership;
mod checks;
mod moves;
mod regions;
mod request_flush;
mod routes;
pub(crate) mod settle;
mod start_group;
mod stop_replica;
mod transfer_leader;

pub(crate) use self::transfer_leader::transfer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::agreed_limits::REGION_STATE_BYTES;
use tidewater_common::header::check_header;
use tidewater_common::log_rate::LogRate;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::group_control_server::{GroupControl, GroupControlServer};
use tidewater_proto::v1::{self, CallHeader, Reason};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

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
            .max_decoding_message_size(REGION_STATE_BYTES)
            .max_encoding_message_size(REGION_STATE_BYTES)
    }

    /// Refuses a call for another node, and one that contradicts the catalog.
    async fn check<T>(
        &self,
        header: Option<&CallHeader>,
        request: &T,
        check: Option<fn(&CatalogRecords, &T) -> checks::Checked>,
    ) -> Result<(), Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, header)?;
        let Some(check) = check else { return Ok(()) };
        let revision = header.map_or(0, |header| header.catalog_revision);
        node.catalog.check(revision, |catalog| check(catalog, request)).await
    }

    /// Counts and logs a call that no node with a correct view of the cluster sends.
    fn note_error(&self, call: &'static str, problem: &Refusal, from: Option<SocketAddr>) {
        if !count_contradiction(call, problem) {
            return;
        }
        if let Some(count) = self.refusals.due(Instant::now().into_std()) {
            let from = address(from);
            warn!(call, %from, count, %problem, "refused a call of another node");
        }
    }
}

/// Logs a call that has removed rows, columns or replicas, or changed members, with its sender.
fn note_success(call: &'static str, group: u64, from: Option<SocketAddr>) {
    let changes = [
        "drop_region",
        "truncate_region",
        "alter_region",
        "split_region",
        "merge_regions",
        "close_region",
        "receive_region",
        "release_region",
        "change_membership",
        "stop_replica",
    ];
    if changes.contains(&call) {
        info!(call, group, from = %address(from), "call of another node completed");
    }
}

fn address(from: Option<SocketAddr>) -> String {
    from.map_or_else(|| "unknown".to_owned(), |from| from.to_string())
}

/// Counts the error of a call, if the call contradicts the catalog or the group. Returns whether it does.
pub(crate) fn count_contradiction(call: &'static str, problem: &Refusal) -> bool {
    let contradicts = is_contradiction(problem.reason);
    if contradicts {
        meters::count_refused_call(call, problem.reason);
    }
    contradicts
}

/// Returns whether the error of a call means that the call contradicts the catalog or the group. The
/// other errors are of calls that the meta leader repeats.
fn is_contradiction(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidArgument
            | Reason::WrongCluster
            | Reason::WrongNode
            | Reason::MembershipStale
            | Reason::MemberNotFound
    )
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
                    let group = request.group_id;
                    let answer = async {
                        self.check(request.header.as_ref(), &request, $check).await?;
                        $call(&self.groups, request).await
                    };
                    let call = stringify!($name);
                    match answer.await {
                        Ok(answer) => {
                            note_success(call, group, from);
                            Ok(Response::new(answer))
                        }
                        Err(problem) => {
                            self.note_error(call, &problem, from);
                            Err(problem.into())
                        }
                    }
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
    hold_region: HoldRegionRequest => HoldRegionResponse, routes::hold, Some(checks::hold);
    split_region: SplitRegionRequest => SplitRegionResponse, routes::split, Some(checks::split);
    merge_regions: MergeRegionsRequest => MergeRegionsResponse, routes::merge, Some(checks::merge);
    close_region: CloseRegionRequest => CloseRegionResponse, routes::close, Some(checks::close);
    prepare_region: PrepareRegionRequest => PrepareRegionResponse, moves::prepare,
        Some(checks::prepare);
    get_departing_region: GetDepartingRegionRequest => GetDepartingRegionResponse, moves::departing, None;
    receive_region: ReceiveRegionRequest => ReceiveRegionResponse, moves::receive,
        Some(checks::receive);
    release_region: ReleaseRegionRequest => ReleaseRegionResponse, moves::release,
        Some(checks::release);
    activate_region: ActivateRegionRequest => ActivateRegionResponse, moves::activate,
        Some(checks::activate);
    drop_region: DropRegionRequest => DropRegionResponse, regions::drop, Some(checks::drop);
    request_flush: RequestFlushRequest => RequestFlushResponse, request_flush::call, None;
}
