//! Exports: tokens, creation, list, drop.

mod claim;

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::Epoch;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, change_collections::Change};
use uuid::Uuid;

use self::claim::claim;
use super::StorageService;
use super::prepare::last_barrier;
use crate::catalog::{EXPORT_TOKEN_PREFIX, MetaState};
use crate::commands::collections::{check_change, check_create};
use crate::commands::{CollectionCommandError, CommandError};
use crate::services::RunningReplica;

/// Default and greatest number of exports in one answer.
const MAX_LISTED: usize = 1_000;

impl StorageService {
    /// Acquires the hold of a token.
    pub(super) async fn prepare_export(
        &self,
        request: v1::PrepareExportRequest,
    ) -> Result<v1::ReadHold, Refusal> {
        self.check_level()?;
        let hold = v1::AcquireReadHoldRequest {
            name: format!("{EXPORT_TOKEN_PREFIX}{}", request.request_id),
            request_id: request.request_id,
            holder: request.holder,
            tables: vec![request.table],
            epoch: request.epoch,
            lease_ms: request.lease_ms,
            ..v1::AcquireReadHoldRequest::default()
        };
        self.acquire(hold).await
    }

    /// Releases the hold of a token.
    pub(super) async fn cancel_prepare_export(
        &self,
        request: v1::CancelPrepareExportRequest,
    ) -> Result<(), Refusal> {
        if !request.token.starts_with(EXPORT_TOKEN_PREFIX) {
            let text = format!("a token of an export begins with {EXPORT_TOKEN_PREFIX:?}");
            return Err(Refusal::new(Reason::InvalidArgument, text));
        }
        let release = v1::ReleaseReadHoldsRequest { names: vec![request.token] };
        self.change(&[], Change::Release(release)).await.map(drop)
    }

    /// Claims the prefix of an export, and creates the export.
    pub(super) async fn create_export(
        &self,
        request: v1::CreateExportRequest,
    ) -> Result<v1::Export, Refusal> {
        self.check_level()?;
        let checked = check_create(&request).map_err(CommandError::from)?;
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let table = request.table.clone();
        let change = Change::CreateExport(request.clone());
        if running.group.view.read().exports().by_id(checked.id).is_none() {
            // Before anything is written below the prefix.
            self.check_creation(&running, &table, &change).await?;
            let target = v1::ExportTarget {
                export_id: Bytes::copy_from_slice(checked.id.as_bytes()),
                name: request.name,
                table: table.clone(),
                target: request.target,
            };
            claim(&running, &table, target).await?;
        }
        let running = self.change(std::slice::from_ref(&table), change).await?;
        created(&running.group.view.read(), checked.id)
    }

    /// Refuses a creation that the command would refuse.
    async fn check_creation(
        &self,
        running: &RunningReplica,
        table: &String,
        change: &Change,
    ) -> Result<(), Refusal> {
        let prepared = self.prepare(running, std::slice::from_ref(table)).await?;
        let (_, upper) = last_barrier(running).await?;
        let command = v1::ChangeCollections {
            upper: upper.get(),
            history_ms: self.barriers.history_ms(),
            learned: prepared.learned,
            change: Some(change.clone()),
        };
        Ok(check_change(&running.group.view.read(), &command)?)
    }

    pub(super) async fn drop_export(&self, request: v1::DropExportRequest) -> Result<(), Refusal> {
        self.check_level()?;
        self.change(&[], Change::DropExport(request)).await.map(drop)
    }

    pub(super) async fn list_exports(
        &self,
        request: &v1::ListExportsRequest,
    ) -> Result<v1::ListExportsResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let (_, upper) = last_barrier(&running).await?;
        let limit = match request.limit as usize {
            0 => MAX_LISTED,
            limit => limit.min(MAX_LISTED),
        };
        let state = running.group.view.read();
        let mut later = state.exports().after(&request.after);
        let progress = running.observations.exports.lock();
        let exports = later.by_ref().take(limit).map(|export| {
            let progress = progress.get(&export.id).cloned().unwrap_or_default();
            let failure = progress.failure().map(|failure| failure.message.clone());
            let table = state.table(export.table);
            // The steps of a refreshable table end at its published epoch.
            let refreshed = state.published_of(export.table).map(Epoch::next);
            v1::ListedExport {
                export: Some(export.as_ref().into()),
                table: table.map(|table| table.name.clone()).unwrap_or_default(),
                upper: refreshed.unwrap_or(upper).get(),
                regions_done: u32::try_from(progress.done).unwrap_or(u32::MAX),
                regions: u32::try_from(progress.regions).unwrap_or(u32::MAX),
                step_rows: progress.rows(),
                failure: failure.unwrap_or_default(),
            }
        });
        let exports = exports.collect();
        Ok(v1::ListExportsResponse { exports, more: later.next().is_some() })
    }

    /// Refuses calls below the level of exports: earlier releases cannot read their records.
    fn check_level(&self) -> Result<(), Refusal> {
        let level = self.slot.get()?.group.view.read().header().feature_level;
        if level < FeatureLevel::EXPORTS {
            return Err(CommandError::FeatureLevel { needed: FeatureLevel::EXPORTS, level }.into());
        }
        Ok(())
    }
}

/// Returns an export that a command has written. It may have been dropped since.
fn created(state: &MetaState, id: Uuid) -> Result<v1::Export, Refusal> {
    let export = state.exports().by_id(id).map(|export| v1::Export::from(&**export));
    let gone = || CollectionCommandError::ExportNotFound(id.to_string());
    export.ok_or_else(|| CommandError::from(gone()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::collections::testing::{change, drop_export, with_export};
    use crate::commands::procedures::testing::id;
    use crate::commands::testing::run;

    #[test]
    fn creation_fails_if_its_export_is_dropped() {
        let mut state = with_export();
        assert_eq!(created(&state, id(20)).unwrap().name, "x");
        run(&mut state, change(0, drop_export("x"))).unwrap();
        let gone = created(&state, id(20)).unwrap_err();
        assert_eq!(gone.reason, Reason::ExportNotFound);
        assert_eq!(gone.message, format!("export \"{}\" does not exist", id(20)));
    }
}
