//! Operations on routes: each begins a procedure with a command, and waits until it has ended.

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, ProcedureKind, ProcedureState, Reason};

use super::AdminService;
use super::tables::{ProcedureRequest, cancelled, wait_for};
use crate::catalog::MetaState;

impl AdminService {
    pub(super) async fn split(
        &self,
        request: v1::SplitRouteRequest,
    ) -> Result<v1::SplitRouteResponse, Refusal> {
        let running = self.slot.get()?;
        let route = RegionId(request.route_id);
        let begin = ProcedureRequest::new(ProcedureKind::Split, &request.request_id, &request)?;
        let id = begin.id;
        begin.begin(&running).await?;
        wait_for(&running, &format!("route {route} is being split"), |state| {
            split_result(state, id, route)
        })
        .await
    }
}

/// Returns the result of a split; `None`: it has not ended.
fn split_result(
    state: &MetaState,
    id: uuid::Uuid,
    route: RegionId,
) -> Option<Result<v1::SplitRouteResponse, Refusal>> {
    let Some(procedure) = state.procedures().get(id) else {
        let text = format!("the split of route {route} ended long ago");
        return Some(Err(Refusal::new(Reason::ProcedureNotFound, text)));
    };
    match procedure.state {
        ProcedureState::Running | ProcedureState::Abandoning | ProcedureState::Unspecified => None,
        ProcedureState::Completed => {
            // The locked routes: the route itself, and its children.
            let children = procedure.routes.iter().filter(|child| **child != route);
            Some(Ok(v1::SplitRouteResponse {
                child_ids: children.map(|child| child.get()).collect(),
                catalog_version: state.catalog_version().get(),
            }))
        }
        ProcedureState::Abandoned => Some(Err(cancelled(&format!("the split of route {route}")))),
        ProcedureState::Superseded => {
            let text = format!("a later change of route {route} has superseded the split");
            Some(Err(Refusal::new(Reason::ProcedureSuperseded, text)))
        }
    }
}
