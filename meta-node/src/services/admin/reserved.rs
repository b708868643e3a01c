//! Operations on reserved tables.

use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, ProcedureKind, Reason, meta_command::Kind};

use super::tables::{ProcedureRequest, table_of};
use super::{AdminService, definitions};
use crate::catalog::MetaState;

impl AdminService {
    pub(super) async fn reserve(
        &self,
        request: v1::ReserveTableRequest,
    ) -> Result<v1::ReserveTableResponse, Refusal> {
        definitions::check_create(&request.definition.clone().unwrap_or_default())?;
        let running = self.slot.get()?;
        let id = table_of(&running.propose_at_level(Kind::ReserveTable(request)).await?)?;
        let state = running.group.view.read();
        let table = state.table(id).map(|table| table.as_ref().into());
        Ok(v1::ReserveTableResponse { table: Some(table.ok_or_else(|| is_gone(id))?) })
    }

    pub(super) async fn save(
        &self,
        request: v1::SaveRoutesRequest,
    ) -> Result<v1::SaveRoutesResponse, Refusal> {
        let running = self.slot.get()?;
        let id = table_of(&running.propose_at_level(Kind::SaveRoutes(request)).await?)?;
        saved(&running.group.view.read(), id)
    }

    pub(super) async fn open(
        &self,
        request: v1::OpenTableRequest,
    ) -> Result<v1::OpenTableResponse, Refusal> {
        let running = self.slot.get()?;
        let name = request.name.clone();
        let begin = ProcedureRequest::new(ProcedureKind::Open, &request.request_id, &request)?;
        let id = begin.begin(&running).await?;
        let (table, catalog_version) = self.wait_until_created(&running, id, &name).await?;
        Ok(v1::OpenTableResponse { table: Some(table), catalog_version })
    }
}

/// Returns the routes of the table as they are now: after a repeated request, those of a later save.
fn saved(state: &MetaState, id: TableId) -> Result<v1::SaveRoutesResponse, Refusal> {
    state.table(id).ok_or_else(|| is_gone(id))?;
    Ok(v1::SaveRoutesResponse {
        catalog_version: state.catalog_version().get(),
        routes: state.routes_of(id).map(|route| route.as_ref().into()).collect(),
    })
}

fn is_gone(id: TableId) -> Refusal {
    Refusal::new(Reason::TableNotFound, format!("table id {id} was dropped"))
}
