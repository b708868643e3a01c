//! What is asked of tables: each begins a procedure by a command, and waits until that is over.

use std::time::Duration;

use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, LoadPhase, Reason, TableState, meta_command::Kind, meta_reply};
use tokio::time::timeout;
use uuid::Uuid;

use super::AdminService;
use crate::catalog::{MetaState, TableChange};
use crate::services::Running;

/// How long creating, changing or dropping a table may take before the caller is told to look again.
const TABLE_DEADLINE: Duration = Duration::from_secs(30);

impl AdminService {
    pub(super) async fn create(
        &self,
        request: v1::CreateTableRequest,
    ) -> Result<v1::CreateTableResponse, Refusal> {
        let name = request.name.clone();
        let (table, version) = self.created(Kind::CreateTable(request), &name).await?;
        Ok(v1::CreateTableResponse { table: Some(table), catalog_version: version })
    }

    pub(super) async fn clone_table_of(
        &self,
        request: v1::CloneTableRequest,
    ) -> Result<v1::CloneTableResponse, Refusal> {
        let name = request.new_name.clone();
        let (table, version) = self.created(Kind::CloneTable(request), &name).await?;
        Ok(v1::CloneTableResponse { table: Some(table), catalog_version: version })
    }

    /// Begins the making of a table and waits until it can be written to.
    async fn created(&self, begin: Kind, name: &str) -> Result<(v1::Table, u64), Refusal> {
        let running = self.slot.get()?;
        let reply = running.group.propose(begin).await?;
        let id = table_of(&reply)?;
        let doing = format!("table {name:?} is being created");
        wait_for(&running, &doing, |state| match state.table(id) {
            Some(table) if table.state == TableState::Creating => None,
            Some(table) if table.state == TableState::Active => {
                Some(Ok((table.as_ref().into(), state.catalog_version().get())))
            }
            _ => Some(Err(Refusal::new(
                Reason::TableNotFound,
                format!("table {name:?} was created, and dropped again since"),
            ))),
        })
        .await
    }

    pub(super) async fn begin_load_of(
        &self,
        request: v1::BeginLoadRequest,
    ) -> Result<v1::BeginLoadResponse, Refusal> {
        let running = self.slot.get()?;
        let (name, area) = (request.name.clone(), request.request_id.parse::<Uuid>().ok());
        let reply = running.group.propose(Kind::BeginLoad(request)).await?;
        let id = table_of(&reply)?;
        let ended = || {
            let text = format!("the load of table {name:?} has ended before it began");
            Some(Err(Refusal::new(Reason::LoadEnded, text)))
        };
        wait_for(&running, &format!("a load of table {name:?} is being begun"), |state| {
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
        let (name, area) = (request.name.clone(), request.request_id.parse::<Uuid>().ok());
        let doing = match request.publish {
            true => format!("what was loaded into table {name:?} is being published"),
            false => format!("a load of table {name:?} is being given up"),
        };
        let reply = running.group.propose(Kind::EndLoad(request)).await?;
        let id = table_of(&reply)?;
        wait_for(&running, &doing, |state| {
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
        let doing = format!("table {:?} is being dropped", request.name);
        let reply = running.group.propose(Kind::BeginDropTable(request)).await?;
        let id = table_of(&reply)?;
        wait_for(&running, &doing, |state| match state.table(id) {
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
        let name = request.name.clone();
        let table = self.change(Kind::BeginAlterTable(request), &name, "altered").await?;
        Ok(v1::AlterTableResponse { table: Some(table) })
    }

    pub(super) async fn truncate(
        &self,
        request: v1::TruncateTableRequest,
    ) -> Result<v1::TruncateTableResponse, Refusal> {
        let name = request.name.clone();
        let table = self.change(Kind::BeginTruncateTable(request), &name, "truncated").await?;
        Ok(v1::TruncateTableResponse { table_id: table.table_id })
    }

    /// Begins a change of a table and waits until all its regions have taken it.
    async fn change(&self, begin: Kind, name: &str, verb: &str) -> Result<v1::Table, Refusal> {
        let running = self.slot.get()?;
        let reply = running.group.propose(begin).await?;
        let id = table_of(&reply)?;
        wait_for(&running, &format!("table {name:?} is being {verb}"), |state| {
            match state.table(id) {
                Some(table) if table.is_live() && table.change.is_some() => None,
                Some(table) if table.is_live() => Some(Ok(table.as_ref().into())),
                _ => Some(Err(Refusal::new(
                    Reason::TableNotFound,
                    format!("table {name:?} was {verb}, and dropped since"),
                ))),
            }
        })
        .await
    }
}

fn table_of(reply: &v1::MetaReply) -> Result<TableId, Refusal> {
    match reply.outcome {
        Some(meta_reply::Outcome::TableId(id)) => Ok(TableId(id)),
        _ => Err(Refusal::new(Reason::Internal, "a table command gave no table id")),
    }
}

/// Waits until the state gives an answer. The procedure goes on when the caller's time is up.
async fn wait_for<T>(
    running: &Running,
    doing: &str,
    mut answer: impl FnMut(&MetaState) -> Option<Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut revisions = running.group.view.subscribe();
    let waiting = async {
        loop {
            revisions.mark_unchanged();
            let answered = answer(&running.group.view.read());
            if let Some(answered) = answered {
                return answered;
            }
            if revisions.changed().await.is_err() {
                return Err(Refusal::new(Reason::Unavailable, "this meta node is stopping"));
            }
        }
    };
    timeout(TABLE_DEADLINE, waiting).await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Reason::DeadlineExceeded,
            format!("{doing}, and this goes on: `tidewater cluster status` says what it waits for"),
        ))
    })
}
