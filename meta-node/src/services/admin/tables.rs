//! Operations on tables: each begins a procedure with a command, and waits until it is completed.

mod loads;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, AbandonCause, NodeRole, NodeState, ProcedureKind, ProcedureState, Reason, TableState,
    meta_command::Kind, meta_reply,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{AdminService, definitions};
use crate::catalog::{MetaState, Node, Procedure};
use crate::commands::CommandError;
use crate::commands::procedures::{FIRST_KINDS, kind_of};
use crate::services::RunningReplica;

/// Maximum time that a call waits for a procedure on a table. The procedure continues afterwards.
const TABLE_DEADLINE: Duration = Duration::from_secs(30);

impl AdminService {
    pub(super) async fn create(
        &self,
        request: v1::CreateTableRequest,
    ) -> Result<v1::CreateTableResponse, Refusal> {
        definitions::check_create(&request)?;
        if let Some(refresh) = &request.refresh {
            self.check_source(refresh).await?;
        }
        let name = request.name.clone();
        let begin = ProcedureRequest::new(ProcedureKind::Create, &request.request_id, &request)?;
        let earlier = Kind::CreateTable(request);
        let (table, version) = self.create_and_wait(begin, earlier, &name).await?;
        Ok(v1::CreateTableResponse { table: Some(table), catalog_version: version })
    }

    /// Has a data node check the source of a refreshable table: data nodes know the kinds.
    async fn check_source(&self, refresh: &v1::RefreshDefinition) -> Result<(), Refusal> {
        definitions::check_source_length(refresh)?;
        let running = self.slot.get()?;
        running.group.check_leading()?;
        let node = {
            let state = running.group.view.read();
            let up = |node: &&Arc<Node>| node.role == NodeRole::Data && node.state == NodeState::Up;
            state.nodes().find(up).map(|node| node.id)
        };
        let node = node.ok_or_else(|| Refusal::new(Reason::NoDataNodes, "no data node is up"))?;
        let source = v1::SourceRecord {
            source_id: 0,
            kind: refresh.source_kind.clone(),
            config: refresh.source_config.clone(),
        };
        let request = v1::CheckSourceRequest { source: Some(source), header: None };
        running.control.check_source(node, request).await
    }

    pub(super) async fn clone_table_of(
        &self,
        request: v1::CloneTableRequest,
    ) -> Result<v1::CloneTableResponse, Refusal> {
        definitions::check_clone(&request)?;
        let name = request.new_name.clone();
        let begin = ProcedureRequest::new(ProcedureKind::Clone, &request.request_id, &request)?;
        let earlier = Kind::CloneTable(request);
        let (table, version) = self.create_and_wait(begin, earlier, &name).await?;
        Ok(v1::CloneTableResponse { table: Some(table), catalog_version: version })
    }

    /// Begins the creation of a table, and waits until the table accepts writes.
    async fn create_and_wait(
        &self,
        begin: ProcedureRequest,
        earlier: Kind,
        name: &str,
    ) -> Result<(v1::Table, u64), Refusal> {
        let running = self.slot.get()?;
        let id = begin.propose(&running, earlier).await?;
        self.wait_until_created(&running, id, name).await
    }

    /// Waits until a table that is created accepts writes.
    pub(in crate::services) async fn wait_until_created(
        &self,
        running: &RunningReplica,
        id: TableId,
        name: &str,
    ) -> Result<(v1::Table, u64), Refusal> {
        let operation = format!("table {name:?} is being created");
        wait_for(running, &operation, |state| match state.table(id) {
            Some(table) if table.state == TableState::Creating => None,
            Some(table) if table.state == TableState::Active => {
                Some(Ok((table.as_ref().into(), state.catalog_version().get())))
            }
            _ => Some(Err(Refusal::new(
                Reason::TableNotFound,
                format!("table {name:?} was dropped, or its creation was cancelled"),
            ))),
        })
        .await
    }

    /// Checks the definition of a new table that clients write, before a command is proposed.
    pub(in crate::services) fn check_definition(
        &self,
        definition: &v1::CreateTableRequest,
    ) -> Result<(), Refusal> {
        definitions::check_create(definition)
    }

    pub(in crate::services) async fn drop_table_of(
        &self,
        request: v1::DropTableRequest,
    ) -> Result<v1::DropTableResponse, Refusal> {
        let running = self.slot.get()?;
        let operation = format!("table {:?} is being dropped", request.name);
        if request.name.is_empty() && request.table_id != 0 {
            // The leader drops by ids alone.
            return Err(Refusal::new(Reason::InvalidArgument, "name the table to drop"));
        }
        let begin = ProcedureRequest::new(ProcedureKind::Drop, &request.request_id, &request)?;
        let procedure = begin.id;
        let id = begin.propose(&running, Kind::BeginDropTable(request)).await?;
        wait_for(&running, &operation, |state| dropped(state, id, Some(procedure))).await
    }

    /// Waits for the end of a drop that another request has begun.
    pub(in crate::services) async fn wait_until_dropped(
        &self,
        running: &RunningReplica,
        id: TableId,
    ) -> Result<v1::DropTableResponse, Refusal> {
        let operation = format!("table id {id} is being dropped");
        wait_for(running, &operation, |state| dropped(state, id, None)).await
    }

    pub(in crate::services) async fn alter(
        &self,
        request: v1::AlterTableRequest,
    ) -> Result<v1::AlterTableResponse, Refusal> {
        definitions::check_alter(&request)?;
        let name = request.name.clone();
        let begin = ProcedureRequest::new(ProcedureKind::Alter, &request.request_id, &request)?;
        let earlier = Kind::BeginAlterTable(request);
        let table = self.change_and_wait(begin, earlier, &name, "altered").await?;
        Ok(v1::AlterTableResponse { table: Some(table) })
    }

    pub(super) async fn truncate(
        &self,
        request: v1::TruncateTableRequest,
    ) -> Result<v1::TruncateTableResponse, Refusal> {
        let name = request.name.clone();
        let begin = ProcedureRequest::new(ProcedureKind::Truncate, &request.request_id, &request)?;
        let earlier = Kind::BeginTruncateTable(request);
        let table = self.change_and_wait(begin, earlier, &name, "truncated").await?;
        Ok(v1::TruncateTableResponse { table_id: table.table_id })
    }

    /// Begins a change of a table, and waits until all its regions have applied it.
    async fn change_and_wait(
        &self,
        begin: ProcedureRequest,
        earlier: Kind,
        name: &str,
        verb: &str,
    ) -> Result<v1::Table, Refusal> {
        let running = self.slot.get()?;
        let procedure = begin.id;
        let id = begin.propose(&running, earlier).await?;
        wait_for(&running, &format!("table {name:?} is being {verb}"), |state| {
            let table = state.table(id).filter(|table| table.is_live());
            let is_running = match state.procedures().get(procedure) {
                Some(of) if of.state == ProcedureState::Superseded => {
                    return Some(Err(superseded(name)));
                }
                Some(of) if of.state == ProcedureState::Abandoned && table.is_some() => {
                    return Some(Err(abandoned(&format!("the change of table {name:?}"), of)));
                }
                Some(of) => of.is_running(),
                // Begun without a procedure.
                None => table.is_some_and(|table| table.change.is_some()),
            };
            match table {
                Some(_) if is_running => None,
                Some(table) => Some(Ok(table.as_ref().into())),
                None => Some(Err(Refusal::new(
                    Reason::TableNotFound,
                    format!("table {name:?} was {verb} and then dropped"),
                ))),
            }
        })
        .await
    }
}

/// Returns the answer to a drop that has ended: the regions are removed, or refuse writes while holds keep their rows. `None`:
/// it has not ended. `procedure`: that of the request, if it is known.
fn dropped(
    state: &MetaState,
    id: TableId,
    procedure: Option<Uuid>,
) -> Option<Result<v1::DropTableResponse, Refusal>> {
    let removed = v1::DropTableResponse {
        table_id: id.get(),
        catalog_version: state.catalog_version().get(),
        ..v1::DropTableResponse::default()
    };
    let Some(table) = state.table(id) else { return Some(Ok(removed)) };
    // Without its last hold, the table is about to be removed, or being removed.
    let kept = table.dropped.is_some().then(|| state.holds().least_of(id)).flatten()?;
    let holds = state.holds().for_table(id).count();
    let ended = match procedure {
        Some(id) => state.procedures().get(id)?.state,
        None if table.options.dropped => ProcedureState::Completed,
        None => return None,
    };
    match ended {
        ProcedureState::Completed => Some(Ok(v1::DropTableResponse {
            kept_by: kept.name.clone(),
            holds: u32::try_from(holds).unwrap_or(u32::MAX),
            kept_as: table.name.clone(),
            ..removed
        })),
        ProcedureState::Superseded => Some(Err(superseded(table.original_name()))),
        _ => None,
    }
}

/// A procedure to begin.
pub(super) struct ProcedureRequest {
    pub(super) id: Uuid,
    kind: ProcedureKind,
    arguments: Bytes,
}

impl ProcedureRequest {
    pub(super) fn new(
        kind: ProcedureKind,
        id: &str,
        request: &impl Message,
    ) -> Result<Self, Refusal> {
        Ok(Self { id: parse_id(id)?, kind, arguments: request.encode_to_vec().into() })
    }

    /// Begins the procedure, and returns its table. `earlier`: the command for a cluster below the level of
    /// procedures.
    async fn propose(self, running: &RunningReplica, earlier: Kind) -> Result<TableId, Refusal> {
        let level = running.group.view.read().header().feature_level;
        if level < FIRST_KINDS {
            return table_of(&running.group.propose(earlier).await?);
        }
        self.begin(running).await
    }

    /// Begins the procedure of a kind that clusters below its level do not have, and returns its table.
    pub(super) async fn begin(self, running: &RunningReplica) -> Result<TableId, Refusal> {
        let level = running.group.view.read().header().feature_level;
        let needed = kind_of(self.kind as u32).map_or(FIRST_KINDS, |kind| kind.facts().level);
        if level < needed {
            return Err(CommandError::FeatureLevel { needed, level }.into());
        }
        let begin = v1::BeginProcedure {
            id: Bytes::copy_from_slice(self.id.as_bytes()),
            kind: self.kind as u32,
            arguments: self.arguments,
        };
        table_of(&running.group.propose(Kind::BeginProcedure(begin)).await?)
    }
}

/// Returns the error of the caller of an operation that was abandoned.
pub(super) fn abandoned(operation: &str, procedure: &Procedure) -> Refusal {
    let why = match procedure.cause {
        AbandonCause::Operator => "was cancelled",
        AbandonCause::Deadline => "was abandoned at its deadline: retry",
        _ => "was abandoned: retry",
    };
    let last = match &procedure.failure {
        Some(failure) => format!("; its last failure: {}", failure.message),
        None => String::new(),
    };
    Refusal::new(Reason::ProcedureCancelled, format!("{operation} {why}. It has no effect{last}"))
}

fn superseded(name: &str) -> Refusal {
    let text = format!("a later change of table {name:?} has superseded this one");
    Refusal::new(Reason::ProcedureSuperseded, text)
}

fn parse_id(text: &str) -> Result<Uuid, Refusal> {
    text.parse().map_err(|_| Refusal::new(Reason::InvalidArgument, "the request id is not a UUID"))
}

pub(in crate::services) fn table_of(reply: &v1::MetaReply) -> Result<TableId, Refusal> {
    match reply.outcome {
        Some(meta_reply::Outcome::TableId(id)) => Ok(TableId(id)),
        _ => Err(Refusal::new(Reason::Internal, "the table command returned no table id")),
    }
}

/// Waits until `result` returns a value for the current state. After a timeout, the procedure continues.
pub(super) async fn wait_for<T>(
    running: &RunningReplica,
    operation: &str,
    mut result: impl FnMut(&MetaState) -> Option<Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut revisions = running.group.view.subscribe();
    let waiting = async {
        loop {
            revisions.mark_unchanged();
            let completed = result(&running.group.view.read());
            if let Some(completed) = completed {
                return completed;
            }
            if revisions.changed().await.is_err() {
                return Err(Refusal::new(Reason::Unavailable, "this meta node is stopping"));
            }
        }
    };
    timeout(TABLE_DEADLINE, waiting).await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Reason::DeadlineExceeded,
            format!(
                "{operation}, which continues: see `tidewater procedure list` for its progress"
            ),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::collections::testing::{acquire, change, release, with_tables};
    use crate::commands::procedures::testing::{complete, drop_by_id, drop_named, id};
    use crate::commands::testing::run;

    const T: TableId = TableId(1);

    /// Name under which the rows are kept; `None`: they are removed.
    fn kept_as(state: &MetaState, table: TableId) -> Option<Option<String>> {
        let answer = dropped(state, table, Some(id(10)))?.unwrap();
        assert_eq!(answer.table_id, table.get());
        Some((answer.holds > 0).then_some(answer.kept_as))
    }

    #[test]
    fn drop_is_answered_when_regions_are_removed() {
        let mut state = with_tables();
        run(&mut state, drop_named(10, "t")).unwrap();
        assert_eq!(kept_as(&state, T), None);
        complete(&mut state, 10);
        assert_eq!(kept_as(&state, T), Some(None));
    }

    #[test]
    fn drop_of_a_held_table_names_its_holds() {
        let mut state = with_tables();
        for (number, name) in [(1, "h"), (2, "i")] {
            run(&mut state, change(20, acquire(number, name, &["t"], 0))).unwrap();
        }
        run(&mut state, drop_named(10, "t")).unwrap();
        assert_eq!(kept_as(&state, T), None, "its regions accept writes");
        assert_eq!(dropped(&state, T, None), None);
        let mut released = state.clone();
        complete(&mut state, 10);
        assert_eq!(kept_as(&state, T), Some(Some("_tw_dropped_1".to_owned())));
        let answer = dropped(&state, T, Some(id(10))).unwrap().unwrap();
        assert_eq!(dropped(&state, T, None), Some(Ok(answer.clone())), "of another request");
        assert_eq!((answer.kept_by.as_str(), answer.holds), ("h", 2));
        // The holds end before the regions refuse writes: the answer waits for their removal.
        for name in ["h", "i"] {
            run(&mut released, change(20, release(name))).unwrap();
        }
        assert_eq!(kept_as(&released, T), None);
        run(&mut released, drop_by_id(12, 1)).unwrap();
        assert_eq!(kept_as(&released, T), None);
        complete(&mut released, 12);
        assert_eq!(kept_as(&released, T), Some(None));
    }

    #[test]
    fn superseded_drop_is_an_error() {
        let mut state = with_tables();
        run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
        run(&mut state, drop_named(10, "t")).unwrap();
        let supersede =
            crate::commands::procedures::testing::abandon(&state, 10, AbandonCause::Superseded);
        run(&mut state, supersede).unwrap();
        let refusal = dropped(&state, T, Some(id(10))).unwrap().unwrap_err();
        assert_eq!(refusal.reason, Reason::ProcedureSuperseded);
        // The leader repeats it.
        assert!(crate::commands::procedures::can_drop(&state, T));
        run(&mut state, drop_by_id(12, 1)).unwrap();
        complete(&mut state, 12);
        let table = state.table(T).unwrap();
        assert!(table.options.dropped && table.original_name() == "t");
        assert!(!crate::commands::procedures::can_drop(&state, T));
    }
}
