//! Staging of the files of a load in their regions.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Load;
use crate::commands::procedures::refresh::area;
use crate::leader::attempts::recorded;
use crate::leader::refreshes::splits::{ATTEMPTS, ends_staging};

/// Regions in which files are staged at a time.
const CONCURRENT_REGIONS: usize = 4;
/// Files of a region that are staged by one call: its owner reads all of them.
const STAGED_AT_ONCE: usize = 64;
/// Interval of the checks for files that are due.
const STAGE_INTERVAL: Duration = Duration::from_secs(10);
/// Interval at which the failure of the load is recorded.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

impl Load<'_> {
    /// Stages the files that are due, until all splits are loaded.
    pub(super) async fn stage_until(&self, loaded: &CancellationToken) -> Result<(), Refusal> {
        while loaded.run_until_cancelled(sleep(STAGE_INTERVAL)).await.is_some() {
            let due = self.pending.lock().take_due(Instant::now());
            self.stage(due).await?;
        }
        Ok(())
    }

    /// Stages files.
    pub(super) async fn stage(&self, files: Vec<(RegionId, Vec<Bytes>)>) -> Result<(), Refusal> {
        stream::iter(files.into_iter().map(Ok))
            .try_for_each_concurrent(CONCURRENT_REGIONS, |(region, files)| async move {
                for files in files.chunks(STAGED_AT_ONCE) {
                    self.stage_in(region, files).await?;
                }
                Ok(())
            })
            .await
    }

    /// Stages files in a region. The region fails after many attempts, until one succeeds.
    async fn stage_in(&self, region: RegionId, files: &[Bytes]) -> Result<(), Refusal> {
        let mut attempt = 0;
        let mut failing_since = None;
        loop {
            let staged = self.attempt_stage(region, files).await;
            let now = Instant::now();
            let Err(problem) = staged else {
                self.failing.lock().clear(region, now);
                return Ok(());
            };
            let since = *failing_since.get_or_insert(now);
            if ends_staging(&problem, now.saturating_duration_since(since)) {
                return Err(problem);
            }
            attempt += 1;
            if attempt >= ATTEMPTS {
                self.failing.lock().fail(region, problem.clone(), false, now);
            }
            self.wait(attempt, &problem).await;
        }
    }

    async fn attempt_stage(&self, region: RegionId, files: &[Bytes]) -> Result<(), Refusal> {
        let (group, schema_version) = {
            let state = self.term.group.view.read();
            let table = state.table(self.procedure.table);
            let version = table.map_or(0, |table| table.schema.version().get());
            let route = state.route(region).ok_or_else(|| {
                Refusal::new(Reason::ProcedureSuperseded, format!("route {region} has ended"))
            })?;
            (route.group_id, version)
        };
        let request = v1::AdoptFilesRequest {
            group_id: group.get(),
            region_id: region.get(),
            schema_version,
            area_id: area(self.procedure),
            file_ids: files.to_vec(),
            stage: true,
            ..v1::AdoptFilesRequest::default()
        };
        let call = |node| self.term.control.stage_files(node, request.clone());
        self.term.stage_at_leader(group, call).await
    }

    /// Records the failure of the load in the catalog while it lasts, for the status and the problems.
    pub(super) async fn follow_failures(&self) -> Infallible {
        let table = &self.procedure.table_name;
        loop {
            sleep(FAILURE_INTERVAL).await;
            let known = {
                let state = self.term.group.view.read();
                let current = state.procedures().get(self.procedure.id);
                current.and_then(|current| current.failure.as_ref().map(recorded))
            };
            let failure = self.failing.lock().to_record(known.clone(), Instant::now());
            if failure == known {
                continue;
            }
            match failure.as_ref().map(|failure| failure.message.as_str()) {
                Some(error) => tracing::warn!(%table, error, "a refresh waits"),
                None => tracing::info!(%table, "a refresh continues after failures"),
            }
            if let Err(error) = self.term.report_failure(self.procedure, failure).await {
                tracing::debug!(%table, %error, "failure of a refresh not recorded");
            }
        }
    }
}
