//! Procedures of tables as tasks of a leader term: attempts, permits and progress.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tidewater_common::ids::{RegionId, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, meta_command::Kind};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::leader_term::LeaderTerm;
use super::table_attempts::{TableNotice, TablePhase};
use crate::catalog::Table;

/// Maximum number of concurrent regions of one table. The permits of each group limit the calls.
const MAX_CONCURRENT_REGIONS: usize = 32;

impl LeaderTerm {
    /// Starts the task of an attempt on a table.
    pub(super) fn start_table(self: &Arc<Self>, table: TableId, tasks: &mut JoinSet<()>) {
        let this = Arc::clone(self);
        tasks.spawn(async move {
            let failed = this.finish_table(table).await.err();
            let error = failed.as_ref().map(ToString::to_string);
            let reason = failed.map(|refusal| refusal.reason);
            this.observations.record_table_error(table, error.clone());
            let bits = this.timing.jitter.bits();
            let notice = this.tables.lock().end(table, reason, Instant::now(), bits);
            let error = error.unwrap_or_default();
            match notice {
                Some(TableNotice::Failing) => {
                    tracing::warn!(%table, %error, "regions of a table are not ready; retrying");
                }
                Some(TableNotice::Recovered) => {
                    tracing::info!(%table, "regions of a table are ready after failures");
                }
                None => tracing::debug!(%table, %error, "attempt on a table ended"),
            }
            this.observations.changes.notify_one();
        });
    }

    /// Calls `work` for the regions of a table that have not completed the table's phase, with limited
    /// concurrency. A region that fails does not delay the others; returns the first error.
    pub(super) async fn for_each_region<T, F>(
        &self,
        table: &Table,
        regions: impl IntoIterator<Item = (RegionId, T)>,
        work: impl Fn(T) -> F,
    ) -> Result<(), Refusal>
    where
        F: Future<Output = Result<(), Refusal>>,
    {
        let phase = TablePhase::from(table);
        let pending: Vec<(RegionId, T)> = {
            let attempts = self.tables.lock();
            let is_pending =
                |(region, _): &(RegionId, T)| !attempts.is_completed(table.id, phase, *region);
            regions.into_iter().filter(is_pending).collect()
        };
        let first_error: Mutex<Option<Refusal>> = Mutex::new(None);
        let first_error_of = &first_error;
        let work = &work;
        stream::iter(pending)
            .for_each_concurrent(MAX_CONCURRENT_REGIONS, |(region, of)| async move {
                match work(of).await {
                    Ok(()) => self.tables.lock().record_completed(table.id, phase, region),
                    Err(refusal) => {
                        first_error_of.lock().get_or_insert(refusal);
                    }
                }
            })
            .await;
        first_error.into_inner().map_or(Ok(()), Err)
    }

    /// Proposes a command of a table's procedure, with a permit that is held for the command alone.
    pub(super) async fn table_command(&self, kind: Kind) -> Result<(), Refusal> {
        let closed =
            |_| Refusal::new(Reason::ShuttingDown, "this node no longer leads the meta group");
        let _permit = self.table_commands.acquire().await.map_err(closed)?;
        self.command(kind).await
    }
}
