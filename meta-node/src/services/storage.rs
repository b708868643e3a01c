//! Implementation of the proto service `StorageAdmin`: read holds, read policies, frontiers and exports.
//!
//! A change is one command of the meta group. The first one of a table is preceded by an alteration, which makes the table's
//! oldest readable epoch its own, and by a question to its regions for that epoch.

mod collections;
mod exports;
mod listed;
mod prepare;
mod proposal;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_events::RecordedCalls;
use tidewater_collections::ReadPolicy;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::storage_admin_server::{StorageAdmin, StorageAdminServer};
use tidewater_proto::v1::{self, change_collections::Change};
use tonic::{Request, Response, Status};

use self::prepare::{PREPARED_WITHIN, begin_change, last_barrier};
use self::proposal::propose;
use super::{AdminService, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, ReplicaSlot, RunningReplica};
use crate::catalog::{MetaState, policy_from_wire};
use crate::commands::collections::{check_acquire, needs_epoch};
use crate::commands::{CollectionCommandError, CommandError};
use crate::leader::barriers::BarrierOptions;

/// Changes and describes what holds back the epochs of tables.
#[derive(Debug, Clone)]
pub(crate) struct StorageService {
    slot: ReplicaSlot,
    admin: AdminService,
    barriers: BarrierOptions,
    calls: RecordedCalls,
    /// Maximum time of the steps before a change.
    prepared_within: Duration,
}

impl StorageService {
    pub(crate) fn new(
        slot: ReplicaSlot,
        admin: AdminService,
        barriers: BarrierOptions,
        calls: RecordedCalls,
    ) -> Self {
        Self { slot, admin, barriers, calls, prepared_within: PREPARED_WITHIN }
    }

    /// Changes the maximum time of the steps before a change.
    #[cfg(test)]
    pub(crate) fn with_prepared_within(self, prepared_within: Duration) -> Self {
        Self { prepared_within, ..self }
    }

    pub(crate) fn into_server(self) -> StorageAdminServer<Self> {
        StorageAdminServer::new(self)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_RESPONSE_BYTES)
    }

    /// Changes collections. `tables`: names of those whose records the change needs.
    async fn change(&self, tables: &[String], change: Change) -> Result<RunningReplica, Refusal> {
        let running = self.slot.get()?;
        let level = running.group.view.read().header().feature_level;
        if level < FeatureLevel::COLLECTIONS {
            let needed = FeatureLevel::COLLECTIONS;
            return Err(CommandError::FeatureLevel { needed, level }.into());
        }
        if !needs_epoch(&change) {
            let command =
                v1::ChangeCollections { change: Some(change), ..v1::ChangeCollections::default() };
            running.group.propose(Kind::ChangeCollections(command)).await?;
            return Ok(running);
        }
        let prepared = self.prepare(&running, tables).await?;
        let in_progress = begin_change(&running, prepared.term).await?;
        let command = v1::ChangeCollections {
            upper: in_progress.epoch().get(),
            history_ms: self.barriers.history_ms(),
            learned: prepared.learned,
            change: Some(change),
        };
        let group = Arc::clone(&running.group);
        propose(group, prepared.term, in_progress, command).await?;
        Ok(running)
    }

    async fn acquire(&self, request: v1::AcquireReadHoldRequest) -> Result<v1::ReadHold, Refusal> {
        // Before tables are altered for a hold that is refused.
        check_acquire(&request).map_err(CommandError::from)?;
        let name = request.name.clone();
        let is_known = self.slot.get()?.group.view.read().holds().get(&name).is_some();
        let tables = if is_known { Vec::new() } else { request.tables.clone() };
        let running = self.change(&tables, Change::Acquire(request)).await?;
        held(&running.group.view.read(), &name)
    }

    async fn renew(&self, request: v1::RenewReadHoldsRequest) -> Result<Vec<String>, Refusal> {
        let names = request.names.clone();
        let running = self.change(&[], Change::Renew(request)).await?;
        let state = running.group.view.read();
        Ok(names.into_iter().filter(|name| state.holds().get(name).is_none()).collect())
    }

    async fn downgrade(
        &self,
        request: v1::DowngradeReadHoldRequest,
    ) -> Result<v1::ReadHold, Refusal> {
        let name = request.name.clone();
        let running = self.change(&[], Change::Downgrade(request)).await?;
        held(&running.group.view.read(), &name)
    }

    async fn release(&self, request: v1::ReleaseReadHoldsRequest) -> Result<u32, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let names: BTreeSet<&String> = request.names.iter().collect();
        let state = running.group.view.read();
        let released = names.into_iter().filter(|name| state.holds().get(name).is_some()).count();
        self.change(&[], Change::Release(request)).await?;
        Ok(u32::try_from(released).unwrap_or(u32::MAX))
    }

    async fn set_policy(
        &self,
        request: v1::SetReadPolicyRequest,
    ) -> Result<Option<v1::CollectionFrontiers>, Refusal> {
        let table = request.table.clone();
        let tables = std::slice::from_ref(&table);
        let policy = request.policy.as_ref().and_then(policy_from_wire);
        let running = self.change(tables, Change::Policy(request)).await?;
        if policy == Some(ReadPolicy::Empty) {
            // The table may have been dropped already.
            return Ok(None);
        }
        let wanted = v1::GetCollectionFrontiersRequest { tables: vec![table] };
        let barrier = last_barrier(&running).await?;
        let state = running.group.view.read();
        Ok(listed::frontiers(&state, barrier, &wanted)?.pop())
    }
}

/// Returns a hold that a command has written. It may have been released since.
fn held(state: &MetaState, name: &str) -> Result<v1::ReadHold, Refusal> {
    let hold = state.holds().get(name).map(AsRef::as_ref).map(v1::ReadHold::from);
    let gone = || CollectionCommandError::HoldNotFound(name.to_owned());
    hold.ok_or_else(|| CommandError::from(gone()).into())
}

#[tonic::async_trait]
impl StorageAdmin for StorageService {
    async fn acquire_read_hold(
        &self,
        request: Request<v1::AcquireReadHoldRequest>,
    ) -> Result<Response<v1::AcquireReadHoldResponse>, Status> {
        let call = self.calls.begin(&request);
        let hold = call.end(self.acquire(request.into_inner()).await)?;
        Ok(Response::new(v1::AcquireReadHoldResponse { hold: Some(hold) }))
    }

    async fn renew_read_holds(
        &self,
        request: Request<v1::RenewReadHoldsRequest>,
    ) -> Result<Response<v1::RenewReadHoldsResponse>, Status> {
        // Not recorded: the client library renews by itself.
        let missing = self.renew(request.into_inner()).await?;
        Ok(Response::new(v1::RenewReadHoldsResponse { missing }))
    }

    async fn downgrade_read_hold(
        &self,
        request: Request<v1::DowngradeReadHoldRequest>,
    ) -> Result<Response<v1::DowngradeReadHoldResponse>, Status> {
        // Not recorded: a reader that follows a table moves its hold all the time.
        let hold = self.downgrade(request.into_inner()).await?;
        Ok(Response::new(v1::DowngradeReadHoldResponse { hold: Some(hold) }))
    }

    async fn release_read_holds(
        &self,
        request: Request<v1::ReleaseReadHoldsRequest>,
    ) -> Result<Response<v1::ReleaseReadHoldsResponse>, Status> {
        let call = self.calls.begin(&request);
        let released = call.end(self.release(request.into_inner()).await)?;
        Ok(Response::new(v1::ReleaseReadHoldsResponse { released }))
    }

    async fn list_read_holds(
        &self,
        request: Request<v1::ListReadHoldsRequest>,
    ) -> Result<Response<v1::ListReadHoldsResponse>, Status> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let listed = listed::holds(&running.group.view.read(), request.get_ref());
        Ok(Response::new(listed.map_err(Refusal::from)?))
    }

    async fn set_read_policy(
        &self,
        request: Request<v1::SetReadPolicyRequest>,
    ) -> Result<Response<v1::SetReadPolicyResponse>, Status> {
        let call = self.calls.begin(&request);
        let frontiers = call.end(self.set_policy(request.into_inner()).await)?;
        Ok(Response::new(v1::SetReadPolicyResponse { frontiers }))
    }

    async fn update_read_capabilities(
        &self,
        request: Request<v1::UpdateReadCapabilitiesRequest>,
    ) -> Result<Response<v1::UpdateReadCapabilitiesResponse>, Status> {
        let call = self.calls.begin(&request);
        let request = request.into_inner();
        let tables: Vec<_> = request.changes.iter().map(|of| of.table.clone()).collect();
        call.end(self.change(&tables, Change::Capabilities(request)).await)?;
        Ok(Response::new(v1::UpdateReadCapabilitiesResponse {}))
    }

    async fn get_collection_frontiers(
        &self,
        request: Request<v1::GetCollectionFrontiersRequest>,
    ) -> Result<Response<v1::GetCollectionFrontiersResponse>, Status> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let barrier = last_barrier(&running).await?;
        let frontiers = listed::frontiers(&running.group.view.read(), barrier, request.get_ref());
        let collections = frontiers.map_err(Refusal::from)?;
        Ok(Response::new(v1::GetCollectionFrontiersResponse { collections }))
    }

    async fn allocate_ids(
        &self,
        request: Request<v1::AllocateIdsRequest>,
    ) -> Result<Response<v1::AllocateIdsResponse>, Status> {
        let call = self.calls.begin(&request);
        let first = call.end(self.allocate_ids(request.into_inner()).await)?;
        Ok(Response::new(v1::AllocateIdsResponse { first_id: first.get() }))
    }

    async fn create_collections(
        &self,
        request: Request<v1::CreateCollectionsRequest>,
    ) -> Result<Response<v1::CreateCollectionsResponse>, Status> {
        let call = self.calls.begin(&request);
        let tables = call.end(self.create_collections(request.into_inner()).await)?;
        Ok(Response::new(v1::CreateCollectionsResponse { tables }))
    }

    async fn drop_collections(
        &self,
        request: Request<v1::DropCollectionsRequest>,
    ) -> Result<Response<v1::DropCollectionsResponse>, Status> {
        let call = self.calls.begin(&request);
        let dropped = call.end(self.drop_collections(request.into_inner()).await)?;
        Ok(Response::new(v1::DropCollectionsResponse { dropped }))
    }

    async fn list_collections(
        &self,
        _request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let collections = self.list_collections().await?;
        Ok(Response::new(v1::ListCollectionsResponse { collections }))
    }

    async fn prepare_export(
        &self,
        request: Request<v1::PrepareExportRequest>,
    ) -> Result<Response<v1::PrepareExportResponse>, Status> {
        let call = self.calls.begin(&request);
        let hold = call.end(self.prepare_export(request.into_inner()).await)?;
        Ok(Response::new(v1::PrepareExportResponse { hold: Some(hold) }))
    }

    async fn cancel_prepare_export(
        &self,
        request: Request<v1::CancelPrepareExportRequest>,
    ) -> Result<Response<v1::CancelPrepareExportResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.cancel_prepare_export(request.into_inner()).await)?;
        Ok(Response::new(v1::CancelPrepareExportResponse {}))
    }

    async fn create_export(
        &self,
        request: Request<v1::CreateExportRequest>,
    ) -> Result<Response<v1::CreateExportResponse>, Status> {
        let call = self.calls.begin(&request);
        let export = call.end(self.create_export(request.into_inner()).await)?;
        Ok(Response::new(v1::CreateExportResponse { export: Some(export) }))
    }

    async fn list_exports(
        &self,
        request: Request<v1::ListExportsRequest>,
    ) -> Result<Response<v1::ListExportsResponse>, Status> {
        Ok(Response::new(self.list_exports(request.get_ref()).await?))
    }

    async fn drop_export(
        &self,
        request: Request<v1::DropExportRequest>,
    ) -> Result<Response<v1::DropExportResponse>, Status> {
        let call = self.calls.begin(&request);
        call.end(self.drop_export(request.into_inner()).await)?;
        Ok(Response::new(v1::DropExportResponse {}))
    }
}
