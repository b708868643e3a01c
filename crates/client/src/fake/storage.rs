//! Fake service for holds, policies, frontiers and exports of the meta node.

mod exports;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, storage_admin_server::StorageAdmin};
use tonic::{Request, Response, Status};

/// State of the service, and scripts of its responses.
#[derive(Debug, Default)]
pub(crate) struct StorageState {
    /// Errors of the next calls, which then have no effect.
    refusals: VecDeque<Refusal>,
    pub(crate) holds: BTreeMap<String, v1::ListedHold>,
    /// All received calls that acquire a hold.
    pub(crate) acquisitions: Vec<v1::AcquireReadHoldRequest>,
    /// Number of received calls that renew holds.
    pub(crate) renewals: u32,
    /// Number of received calls that list holds or exports.
    pub(crate) lists: u32,
    /// Tables whose policy was set, by name.
    pub(crate) frontiers: BTreeMap<String, v1::CollectionFrontiers>,
    /// Changes of capabilities that were made.
    pub(crate) capability_changes: Vec<Vec<v1::CapabilityChanges>>,
    /// Request ids of calls that have allocated ids.
    pub(crate) allocations: Vec<String>,
    pub(crate) exports: BTreeMap<String, v1::ListedExport>,
    /// Request ids of all received calls that prepare or create an export.
    pub(crate) export_requests: Vec<String>,
    /// The next call that prepares, creates or drops an export takes effect, but its response is lost.
    pub(crate) lose_response: bool,
}

impl StorageState {
    /// Adds an error to those of the next calls.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        self.refusals.push_back(Refusal::new(reason, "scripted"));
    }

    /// Adds holds without tables.
    pub(crate) fn add_holds(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            let hold = v1::ReadHold { name: name.clone(), ..v1::ReadHold::default() };
            let listed = v1::ListedHold { hold: Some(hold), ..v1::ListedHold::default() };
            self.holds.insert(name, listed);
        }
    }

    fn next_response(&mut self) -> Result<(), Status> {
        self.refusals.pop_front().map_or(Ok(()), |refusal| Err(refusal.into()))
    }
}

pub(super) struct StorageNode {
    pub(super) state: Arc<Mutex<StorageState>>,
}

fn missing(name: &str) -> Status {
    Refusal::new(Reason::HoldNotFound, format!("hold {name} does not exist")).into()
}

/// Returns true if a hold is of a table; empty: of any.
fn is_of(hold: &v1::ListedHold, table: &str) -> bool {
    table.is_empty() || hold.tables.iter().any(|name| name == table)
}

#[tonic::async_trait]
impl StorageAdmin for StorageNode {
    async fn acquire_read_hold(
        &self,
        request: Request<v1::AcquireReadHoldRequest>,
    ) -> Result<Response<v1::AcquireReadHoldResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.acquisitions.push(request.clone());
        state.next_response()?;
        let hold = v1::ReadHold {
            name: request.name.clone(),
            holder: request.holder,
            epoch: request.epoch,
            lease_ms: request.lease_ms,
            ..v1::ReadHold::default()
        };
        let listed =
            v1::ListedHold { hold: Some(hold.clone()), tables: request.tables, left_ms: 0 };
        state.holds.insert(request.name, listed);
        Ok(Response::new(v1::AcquireReadHoldResponse { hold: Some(hold) }))
    }

    async fn renew_read_holds(
        &self,
        request: Request<v1::RenewReadHoldsRequest>,
    ) -> Result<Response<v1::RenewReadHoldsResponse>, Status> {
        let mut state = self.state.lock();
        state.renewals += 1;
        state.next_response()?;
        let names = request.into_inner().names.into_iter();
        let missing = names.filter(|name| !state.holds.contains_key(name)).collect();
        Ok(Response::new(v1::RenewReadHoldsResponse { missing }))
    }

    async fn downgrade_read_hold(
        &self,
        request: Request<v1::DowngradeReadHoldRequest>,
    ) -> Result<Response<v1::DowngradeReadHoldResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.next_response()?;
        let listed = state.holds.get_mut(&request.name);
        let hold = listed.and_then(|listed| listed.hold.as_mut());
        let hold = hold.ok_or_else(|| missing(&request.name))?;
        hold.epoch = request.epoch;
        Ok(Response::new(v1::DowngradeReadHoldResponse { hold: Some(hold.clone()) }))
    }

    async fn release_read_holds(
        &self,
        request: Request<v1::ReleaseReadHoldsRequest>,
    ) -> Result<Response<v1::ReleaseReadHoldsResponse>, Status> {
        let mut state = self.state.lock();
        state.next_response()?;
        let mut released = 0;
        for name in request.into_inner().names {
            released += u32::from(state.holds.remove(&name).is_some());
        }
        Ok(Response::new(v1::ReleaseReadHoldsResponse { released }))
    }

    async fn list_read_holds(
        &self,
        request: Request<v1::ListReadHoldsRequest>,
    ) -> Result<Response<v1::ListReadHoldsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.lists += 1;
        state.next_response()?;
        let limit = if request.limit == 0 { 1_000 } else { request.limit as usize };
        let later = state.holds.iter().filter(|(name, hold)| {
            name.as_str() > request.after.as_str() && is_of(hold, &request.table)
        });
        let mut found: Vec<v1::ListedHold> =
            later.take(limit + 1).map(|(_, hold)| hold.clone()).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        Ok(Response::new(v1::ListReadHoldsResponse { holds: found, more }))
    }

    async fn set_read_policy(
        &self,
        request: Request<v1::SetReadPolicyRequest>,
    ) -> Result<Response<v1::SetReadPolicyResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.next_response()?;
        let frontiers = v1::CollectionFrontiers {
            table: request.table.clone(),
            policy: request.policy,
            ..v1::CollectionFrontiers::default()
        };
        state.frontiers.insert(request.table, frontiers.clone());
        Ok(Response::new(v1::SetReadPolicyResponse { frontiers: Some(frontiers) }))
    }

    async fn update_read_capabilities(
        &self,
        request: Request<v1::UpdateReadCapabilitiesRequest>,
    ) -> Result<Response<v1::UpdateReadCapabilitiesResponse>, Status> {
        let mut state = self.state.lock();
        state.next_response()?;
        state.capability_changes.push(request.into_inner().changes);
        Ok(Response::new(v1::UpdateReadCapabilitiesResponse {}))
    }

    async fn get_collection_frontiers(
        &self,
        request: Request<v1::GetCollectionFrontiersRequest>,
    ) -> Result<Response<v1::GetCollectionFrontiersResponse>, Status> {
        let names = request.into_inner().tables;
        let mut state = self.state.lock();
        state.next_response()?;
        let collections = if names.is_empty() {
            state.frontiers.values().cloned().collect()
        } else {
            names.iter().filter_map(|name| state.frontiers.get(name).cloned()).collect()
        };
        Ok(Response::new(v1::GetCollectionFrontiersResponse { collections }))
    }

    async fn allocate_ids(
        &self,
        request: Request<v1::AllocateIdsRequest>,
    ) -> Result<Response<v1::AllocateIdsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock();
        state.next_response()?;
        let known = state.allocations.iter().position(|id| *id == request.request_id);
        let index = known.unwrap_or_else(|| {
            state.allocations.push(request.request_id);
            state.allocations.len() - 1
        });
        let first_id = u32::try_from(100 + 10 * index).unwrap_or_default();
        if std::mem::take(&mut state.lose_response) {
            return Err(Refusal::new(Reason::LeadershipLost, "scripted").into());
        }
        Ok(Response::new(v1::AllocateIdsResponse { first_id }))
    }

    async fn create_collections(
        &self,
        request: Request<v1::CreateCollectionsRequest>,
    ) -> Result<Response<v1::CreateCollectionsResponse>, Status> {
        self.state.lock().next_response()?;
        let tables = request.into_inner().collections.into_iter().map(|of| v1::Table {
            table_id: of.id,
            name: of.definition.unwrap_or_default().name,
            ..v1::Table::default()
        });
        Ok(Response::new(v1::CreateCollectionsResponse { tables: tables.collect() }))
    }

    async fn drop_collections(
        &self,
        request: Request<v1::DropCollectionsRequest>,
    ) -> Result<Response<v1::DropCollectionsResponse>, Status> {
        self.state.lock().next_response()?;
        let ids = request.into_inner().ids.into_iter();
        let dropped =
            ids.map(|table_id| v1::DropTableResponse { table_id, ..Default::default() }).collect();
        Ok(Response::new(v1::DropCollectionsResponse { dropped }))
    }

    async fn list_collections(
        &self,
        _request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        self.state.lock().next_response()?;
        Ok(Response::new(v1::ListCollectionsResponse::default()))
    }

    async fn prepare_export(
        &self,
        request: Request<v1::PrepareExportRequest>,
    ) -> Result<Response<v1::PrepareExportResponse>, Status> {
        let hold = self.state.lock().prepare_export(request.into_inner())?;
        Ok(Response::new(v1::PrepareExportResponse { hold: Some(hold) }))
    }

    async fn cancel_prepare_export(
        &self,
        request: Request<v1::CancelPrepareExportRequest>,
    ) -> Result<Response<v1::CancelPrepareExportResponse>, Status> {
        self.state.lock().cancel_prepare_export(&request.into_inner())?;
        Ok(Response::new(v1::CancelPrepareExportResponse {}))
    }

    async fn create_export(
        &self,
        request: Request<v1::CreateExportRequest>,
    ) -> Result<Response<v1::CreateExportResponse>, Status> {
        let export = self.state.lock().create_export(request.into_inner())?;
        Ok(Response::new(v1::CreateExportResponse { export: Some(export) }))
    }

    async fn list_exports(
        &self,
        request: Request<v1::ListExportsRequest>,
    ) -> Result<Response<v1::ListExportsResponse>, Status> {
        Ok(Response::new(self.state.lock().list_exports(&request.into_inner())?))
    }

    async fn drop_export(
        &self,
        request: Request<v1::DropExportRequest>,
    ) -> Result<Response<v1::DropExportResponse>, Status> {
        self.state.lock().drop_export(&request.into_inner())?;
        Ok(Response::new(v1::DropExportResponse {}))
    }
}
