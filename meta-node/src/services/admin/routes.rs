//! Operations on routes: each begins a procedure with a command, and waits until it has ended.

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, ProcedureKind, ProcedureState, Reason};
use uuid::Uuid;

use super::AdminService;
use super::tables::{ProcedureRequest, abandoned, wait_for};
use crate::catalog::{MetaState, Procedure};

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
        let operation = format!("the split of route {route}");
        let (child_ids, catalog_version) =
            wait_for(&running, &format!("route {route} is being split"), |state| {
                result(state, id, &operation, &[route])
            })
            .await?;
        Ok(v1::SplitRouteResponse { child_ids, catalog_version })
    }

    pub(super) async fn merge(
        &self,
        request: v1::MergeRoutesRequest,
    ) -> Result<v1::MergeRoutesResponse, Refusal> {
        let running = self.slot.get()?;
        let routes = [RegionId(request.route_id), RegionId(request.neighbour_id)];
        let begin = ProcedureRequest::new(ProcedureKind::Merge, &request.request_id, &request)?;
        let id = begin.id;
        begin.begin(&running).await?;
        let named = format!("routes {} and {}", routes[0], routes[1]);
        let operation = format!("the merge of {named}");
        let (child_ids, catalog_version) =
            wait_for(&running, &format!("{named} are being merged"), |state| {
                result(state, id, &operation, &routes)
            })
            .await?;
        let child_id = child_ids.first().copied().unwrap_or_default();
        Ok(v1::MergeRoutesResponse { child_id, catalog_version })
    }

    pub(super) async fn move_to_group(
        &self,
        request: v1::MoveRouteRequest,
    ) -> Result<v1::MoveRouteResponse, Refusal> {
        let running = self.slot.get()?;
        let route = RegionId(request.route_id);
        let begin = ProcedureRequest::new(ProcedureKind::Move, &request.request_id, &request)?;
        let id = begin.id;
        begin.begin(&running).await?;
        let operation = format!("the move of route {route}");
        let (_, catalog_version) =
            wait_for(&running, &format!("route {route} is being moved"), |state| {
                result(state, id, &operation, &[route])
            })
            .await?;
        Ok(v1::MoveRouteResponse { catalog_version })
    }
}

/// Returns the routes that have replaced `parents`, and the version of the catalog; `None`: the procedure has not ended.
fn result(
    state: &MetaState,
    id: Uuid,
    operation: &str,
    parents: &[RegionId],
) -> Option<Result<(Vec<u64>, u64), Refusal>> {
    let Some(procedure) = state.procedures().get(id) else {
        let text = format!("{operation} ended long ago");
        return Some(Err(Refusal::new(Reason::ProcedureNotFound, text)));
    };
    match procedure.state {
        ProcedureState::Running | ProcedureState::Abandoning | ProcedureState::Unspecified => None,
        ProcedureState::Completed => {
            Some(Ok((children(procedure, parents), state.catalog_version().get())))
        }
        ProcedureState::Abandoned => Some(Err(abandoned(operation, procedure))),
        ProcedureState::Superseded => {
            let last = match &procedure.failure {
                Some(failure) => format!("; its last failure: {}", failure.message),
                None => String::new(),
            };
            let text = format!("the group has abandoned {operation}: retry{last}");
            Some(Err(Refusal::new(Reason::ProcedureSuperseded, text)))
        }
    }
}

/// The locked routes are the parents and their children.
fn children(procedure: &Procedure, parents: &[RegionId]) -> Vec<u64> {
    let children = procedure.routes.iter().filter(|route| !parents.contains(route));
    children.map(|child| child.get()).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidewater_common::ids::TableId;
    use tidewater_proto::v1::AbandonCause;

    use super::*;
    use crate::commands::procedures::testing::{abandon, begin, complete, id, with_tables};
    use crate::commands::testing::{directory, pass, run};

    /// Begins an operation on the routes of table 1 and ends it; returns the result of its caller.
    fn ended(kind: ProcedureKind, cause: Option<AbandonCause>) -> Result<Vec<u64>, Refusal> {
        let mut state = with_tables();
        let routes: Vec<RegionId> =
            state.routes_of(TableId(1)).map(|route| route.route_id).collect();
        let (command, steps, parents) = match kind {
            ProcedureKind::Merge => {
                let request = v1::MergeRoutesRequest {
                    request_id: directory(10),
                    route_id: routes[1].get(),
                    neighbour_id: routes[0].get(),
                    expected_version: 0,
                };
                (begin(kind, 10, &request), 4, &routes[..])
            }
            _ => {
                let request = v1::SplitRouteRequest {
                    request_id: directory(10),
                    route_id: routes[0].get(),
                    split_key: Bytes::from_static(&[0x40]),
                    expected_version: 0,
                    for_load: false,
                };
                (begin(kind, 10, &request), 3, &routes[..1])
            }
        };
        let result = |state: &MetaState| result(state, id(10), "the operation", parents);
        assert!(result(&state).unwrap().is_err());
        run(&mut state, command).unwrap();
        match cause {
            Some(cause) => {
                pass(&mut state, 601);
                let abandoned = abandon(&state, 10, cause);
                run(&mut state, abandoned).unwrap();
                assert!(result(&state).is_none());
                complete(&mut state, 10);
            }
            None => (0..steps).for_each(|_| {
                assert!(result(&state).is_none());
                complete(&mut state, 10);
            }),
        }
        let (children, version) = result(&state).unwrap()?;
        assert_eq!(version, state.catalog_version().get());
        assert!(children.iter().all(|child| state.route(RegionId(*child)).is_some()));
        Ok(children)
    }

    #[test]
    fn caller_receives_the_children() {
        assert_eq!(ended(ProcedureKind::Split, None).unwrap().len(), 2);
        assert_eq!(ended(ProcedureKind::Merge, None).unwrap().len(), 1);
    }

    #[test]
    fn caller_of_an_abandoned_operation_receives_the_cause() {
        for kind in [ProcedureKind::Split, ProcedureKind::Merge] {
            for (cause, text) in [
                (AbandonCause::Operator, "was cancelled"),
                (AbandonCause::Deadline, "deadline: retry"),
            ] {
                let refusal = ended(kind, Some(cause)).unwrap_err();
                assert_eq!(refusal.reason, Reason::ProcedureCancelled);
                assert!(refusal.message.contains(text), "{refusal}");
            }
        }
    }
}
