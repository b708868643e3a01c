//! Operations on routes: each begins a procedure with a command, and waits until it has ended.

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, ProcedureKind, ProcedureState, Reason};

use super::AdminService;
use super::tables::{ProcedureRequest, abandoned, wait_for};
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
        ProcedureState::Abandoned => {
            Some(Err(abandoned(&format!("the split of route {route}"), procedure)))
        }
        ProcedureState::Superseded => {
            let text = format!("a later change of route {route} has superseded the split");
            Some(Err(Refusal::new(Reason::ProcedureSuperseded, text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::AbandonCause;

    use super::*;
    use crate::commands::procedures::testing::{abandon, begin, complete, id, with_tables};
    use crate::commands::testing::{directory, pass, run};

    /// Begins a split and ends it; returns the result of its caller.
    fn result(cause: Option<AbandonCause>) -> Result<v1::SplitRouteResponse, Refusal> {
        let mut state = with_tables();
        let route = state.routes_of(TableId(1)).next().unwrap().route_id;
        let request = v1::SplitRouteRequest {
            request_id: directory(10),
            route_id: route.get(),
            split_key: Bytes::from_static(&[0x40]),
            expected_version: 0,
        };
        assert!(split_result(&state, id(10), route).unwrap().is_err());
        run(&mut state, begin(ProcedureKind::Split, 10, &request)).unwrap();
        match cause {
            Some(cause) => {
                pass(&mut state, 601);
                let abandoned = abandon(&state, 10, cause);
                run(&mut state, abandoned).unwrap();
                assert!(split_result(&state, id(10), route).is_none());
                complete(&mut state, 10);
            }
            None => (0..3).for_each(|_| {
                assert!(split_result(&state, id(10), route).is_none());
                complete(&mut state, 10);
            }),
        }
        let result = split_result(&state, id(10), route).unwrap();
        if let Ok(split) = &result {
            assert_eq!(split.catalog_version, state.catalog_version().get());
            for child in &split.child_ids {
                assert!(state.route(RegionId(*child)).is_some());
            }
        }
        result
    }

    #[test]
    fn caller_of_a_split_receives_the_children() {
        assert_eq!(result(None).unwrap().child_ids.len(), 2);
    }

    #[test]
    fn caller_of_an_abandoned_split_receives_the_cause() {
        for (cause, text) in
            [(AbandonCause::Operator, "was cancelled"), (AbandonCause::Deadline, "deadline: retry")]
        {
            let refusal = result(Some(cause)).unwrap_err();
            assert_eq!(refusal.reason, Reason::ProcedureCancelled);
            assert!(refusal.message.contains(text), "{refusal}");
        }
    }
}
