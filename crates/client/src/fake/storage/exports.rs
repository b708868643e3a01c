//! Fake calls of exports.

use bytes::Bytes;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tonic::Status;
use uuid::Uuid;

use super::StorageState;

impl StorageState {
    /// Adds exports of no table.
    pub(crate) fn add_exports(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let export = v1::Export { name: name.clone(), ..v1::Export::default() };
            let listed = v1::ListedExport { export: Some(export), ..v1::ListedExport::default() };
            self.exports.insert(name, listed);
        }
    }

    /// Returns an error if the response to the call, which has taken effect, is lost.
    fn respond(&mut self) -> Result<(), Status> {
        if std::mem::take(&mut self.lose_response) {
            return Err(Refusal::new(Reason::LeadershipLost, "the response is lost").into());
        }
        Ok(())
    }

    pub(super) fn prepare_export(
        &mut self,
        request: v1::PrepareExportRequest,
    ) -> Result<v1::ReadHold, Status> {
        self.export_requests.push(request.request_id.clone());
        self.next_response()?;
        let hold = v1::ReadHold {
            // The client does not depend on the form of a token.
            name: format!("token {}", request.request_id),
            holder: request.holder,
            epoch: request.epoch,
            lease_ms: request.lease_ms,
            ..v1::ReadHold::default()
        };
        let tables = vec![request.table];
        let listed = v1::ListedHold { hold: Some(hold.clone()), tables, left_ms: 0 };
        self.holds.insert(hold.name.clone(), listed);
        self.respond()?;
        Ok(hold)
    }

    pub(super) fn cancel_prepare_export(
        &mut self,
        request: &v1::CancelPrepareExportRequest,
    ) -> Result<(), Status> {
        self.next_response()?;
        self.holds.remove(&request.token);
        self.respond()
    }

    pub(super) fn create_export(
        &mut self,
        request: v1::CreateExportRequest,
    ) -> Result<v1::Export, Status> {
        self.export_requests.push(request.request_id.clone());
        self.next_response()?;
        let id = Uuid::parse_str(&request.request_id).map_err(|error| {
            Status::from(Refusal::new(Reason::InvalidArgument, error.to_string()))
        })?;
        let id = Bytes::copy_from_slice(id.as_bytes());
        if let Some(known) = self.exports.get(&request.name).and_then(|of| of.export.clone()) {
            return if known.id == id { Ok(known) } else { Err(exists(&request.name)) };
        }
        let mut epoch = request.epoch;
        if !request.token.is_empty() {
            let token = self.holds.remove(&request.token).and_then(|listed| listed.hold);
            let token = token.ok_or_else(|| expired(&request.token))?;
            epoch = epoch.max(token.epoch);
        }
        let export = v1::Export {
            id,
            name: request.name.clone(),
            table_id: 1,
            target: request.target,
            interval_ms: request.interval_ms,
            as_of: epoch,
            ..v1::Export::default()
        };
        let listed = v1::ListedExport {
            export: Some(export.clone()),
            table: request.table,
            ..v1::ListedExport::default()
        };
        self.exports.insert(request.name, listed);
        self.respond()?;
        Ok(export)
    }

    pub(super) fn list_exports(
        &mut self,
        request: &v1::ListExportsRequest,
    ) -> Result<v1::ListExportsResponse, Status> {
        self.lists += 1;
        self.next_response()?;
        let limit = if request.limit == 0 { 1_000 } else { request.limit as usize };
        let later = self.exports.iter().filter(|(name, _)| **name > request.after);
        let mut exports: Vec<v1::ListedExport> =
            later.take(limit + 1).map(|(_, listed)| listed.clone()).collect();
        let more = exports.len() > limit;
        exports.truncate(limit);
        Ok(v1::ListExportsResponse { exports, more })
    }

    pub(super) fn drop_export(&mut self, request: &v1::DropExportRequest) -> Result<(), Status> {
        self.next_response()?;
        if self.exports.remove(&request.name).is_none() {
            let text = format!("export {} does not exist", request.name);
            return Err(Refusal::new(Reason::ExportNotFound, text).into());
        }
        self.respond()
    }
}

fn exists(name: &str) -> Status {
    Refusal::new(Reason::ExportExists, format!("export {name} already exists")).into()
}

fn expired(token: &str) -> Status {
    Refusal::new(Reason::ExportTokenExpired, format!("token {token} has expired")).into()
}
