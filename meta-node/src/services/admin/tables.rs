//! Operations on tables: each begins a procedure with a command, and waits until it is completed.

use std::time::Duration;

use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, LoadPhase, Reason, TableState, meta_command::Kind, meta_reply};
use tokio::time::timeout;
use uuid::Uuid;

use super::{AdminService, definitions};
use crate::catalog::{MetaState, TableChange};
use crate::services::RunningReplica;

/// Maximum time that a call waits for a procedure on a table. The procedure continues afterwards.
const TABLE_DEADLINE: Duration = Duration::from_secs(30);

/// Maximum wait of a load for the agreement of the clocks: a few heartbeats and ticks.
const AGREEMENT_WAIT: Duration = Duration::from_secs(5);

impl AdminService {
    pub(super) async fn create(
        &self,
        request: v1::CreateTableRequest,
    ) -> Result<v1::CreateTableResponse, Refusal> {
        definitions::check_create(&request)?;
        let name = request.name.clone();
        let (table, version) = self.create_and_wait(Kind::CreateTable(request), &name).await?;
        Ok(v1::CreateTableResponse { table: Some(table), catalog_version: version })
    }

    pub(super) async fn clone_table_of(
        &self,
        request: v1::CloneTableRequest,
    ) -> Result<v1::CloneTableResponse, Refusal> {
        definitions::check_clone(&request)?;
        let name = request.new_name.clone();
        let (table, version) = self.create_and_wait(Kind::CloneTable(request), &name).await?;
        Ok(v1::CloneTableResponse { table: Some(table), catalog_version: version })
    }

    /// Begins the creation of a table, and waits until the table accepts writes.
    async fn create_and_wait(&self, begin: Kind, name: &str) -> Result<(v1::Table, u64), Refusal> {
        let running = self.slot.get()?;
        let reply = running.group.propose(begin).await?;
        let id = table_of(&reply)?;
        let operation = format!("table {name:?} is being created");
        wait_for(&running, &operation, |state| match state.table(id) {
            Some(table) if table.state == TableState::Creating => None,
            Some(table) if table.state == TableState::Active => {
                Some(Ok((table.as_ref().into(), state.catalog_version().get())))
            }
            _ => Some(Err(Refusal::new(
                Reason::TableNotFound,
                format!("table {name:?} was created and then dropped"),
            ))),
        })
        .await
    }

    pub(super) async fn begin_load_of(
        &self,
        request: v1::BeginLoadRequest,
    ) -> Result<v1::BeginLoadResponse, Refusal> {
        let running = self.slot.get()?;
        let name = request.name.clone();
        let area = request.request_id.parse::<Uuid>().ok();
        running.group.check_leading()?;
        running.observations.wait_for_agreement(AGREEMENT_WAIT).await;
        let reply = running.group.propose(Kind::BeginLoad(request)).await?;
        let id = table_of(&reply)?;
        let ended = || {
            let text = format!("the load of table {name:?} ended before all regions had begun it");
            Some(Err(Refusal::new(Reason::LoadEnded, text)))
        };
        wait_for(&running, &format!("the load of table {name:?} is being begun"), |state| {
            let Some(table) = state.table(id) else { return ended() };
            match &table.change {
                Some(TableChange::Load(load)) if Some(load.area) != area => ended(),
                Some(TableChange::Load(load)) => match load.phase {
                    LoadPhase::Opening => None,
                    LoadPhase::Staging => {
                        let table = Some(table.as_ref().into());
                        Some(Ok(v1::BeginLoadResponse { table }))
                    }
                    _ => ended(),
                },
                _ => ended(),
            }
        })
        .await
    }

    pub(super) async fn end_load_of(
        &self,
        request: v1::EndLoadRequest,
    ) -> Result<v1::EndLoadResponse, Refusal> {
        let running = self.slot.get()?;
        let name = request.name.clone();
        let area = request.request_id.parse::<Uuid>().ok();
        let verb = if request.publish { "published" } else { "abandoned" };
        let operation = format!("the load of table {name:?} is being {verb}");
        let reply = running.group.propose(Kind::EndLoad(request)).await?;
        let id = table_of(&reply)?;
        wait_for(&running, &operation, |state| {
            match state.table(id).and_then(|table| table.change.as_ref()) {
                Some(TableChange::Load(load)) if Some(load.area) == area => None,
                _ => Some(Ok(v1::EndLoadResponse {})),
            }
        })
        .await
    }

    pub(super) async fn drop_table_of(
        &self,
        request: v1::DropTableRequest,
    ) -> Result<v1::DropTableResponse, Refusal> {
        let running = self.slot.get()?;
        let operation = format!("table {:?} is being dropped", request.name);
        let reply = running.group.propose(Kind::BeginDropTable(request)).await?;
        let id = table_of(&reply)?;
        wait_for(&running, &operation, |state| match state.table(id) {
            Some(_) => None,
            None => Some(Ok(v1::DropTableResponse {
                table_id: id.get(),
                catalog_version: state.catalog_version().get(),
            })),
        })
        .await
    }

    pub(super) async fn alter(
        &self,
        request: v1::AlterTableRequest,
    ) -> Result<v1::AlterTableResponse, Refusal> {
        definitions::check_alter(&request)?;
        let name = request.name.clone();
        let table = self.change_and_wait(Kind::BeginAlterTable(request), &name, "altered").await?;
        Ok(v1::AlterTableResponse { table: Some(table) })
    }

    pub(super) async fn truncate(
        &self,
        request: v1::TruncateTableRequest,
    ) -> Result<v1::TruncateTableResponse, Refusal> {
        let name = request.name.clone();
        let begin = Kind::BeginTruncateTable(request);
        let table = self.change_and_wait(begin, &name, "truncated").await?;
        Ok(v1::TruncateTableResponse { table_id: table.table_id })
    }

    /// Begins a change of a table, and waits until all its regions have applied it.
    async fn change_and_wait(
        &self,
        begin: Kind,
        name: &str,
        verb: &str,
    ) -> Result<v1::Table, Refusal> {
        let running = self.slot.get()?;
        let reply = running.group.propose(begin).await?;
        let id = table_of(&reply)?;
        wait_for(&running, &format!("table {name:?} is being {verb}"), |state| {
            match state.table(id) {
                Some(table) if table.is_live() && table.change.is_some() => None,
                Some(table) if table.is_live() => Some(Ok(table.as_ref().into())),
                _ => Some(Err(Refusal::new(
                    Reason::TableNotFound,
                    format!("table {name:?} was {verb} and then dropped"),
                ))),
            }
        })
        .await
    }
}

fn table_of(reply: &v1::MetaReply) -> Result<TableId, Refusal> {
    match reply.outcome {
        Some(meta_reply::Outcome::TableId(id)) => Ok(TableId(id)),
        _ => Err(Refusal::new(Reason::Internal, "the table command returned no table id")),
    }
}

/// Waits until `result` returns a value for the current state. After a timeout, the procedure continues.
async fn wait_for<T>(
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
                "{operation}, which continues: see `tidewater cluster status` for its progress"
            ),
        ))
    })
}
