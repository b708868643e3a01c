//! A compactor that has the files of a job already.

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::region::CompactionOutcome;
use tokio::time::Instant;

use super::job::Ended;
use super::way::Way;
use crate::compactors::fleet::Compactor;

/// Jobs that are in the way are waited for so many times as long as one without progress.
const MOST_PATIENCE: u32 = 20;

impl Way<'_> {
    /// A compactor has this very job, from an attempt that was given up, or another one with its files,
    /// which an earlier owner has left there. As long as that goes on, but not for ever, nobody begins it
    /// anew; what comes of it, the manifest says.
    pub(super) async fn wait_for_other(
        &mut self,
        compactor: &Compactor,
        refusal: Refusal,
    ) -> Option<Ended> {
        let dir = self.planned.job().dir;
        let patience = self.job.policy.patience;
        let since = *self.others_since.get_or_insert_with(Instant::now);
        let (mut seen, mut moved) = (None, Instant::now());
        loop {
            let asked = self.job.compactors.under_way(compactor, dir);
            let under_way = match self.job.unless_ended(asked).await {
                Ok(under_way) => under_way,
                Err(ended) => return Some(ended),
            };
            match self.settled().await {
                Some(CompactionOutcome::Committed { version, files_out }) => {
                    return Some(self.committed(version, files_out).await);
                }
                Some(CompactionOutcome::Superseded) => {
                    let job = self.planned.plan().job_id;
                    let message = format!("files of compaction {job} were merged by another one");
                    return Some(Ended::Discarded(Refusal::new(Reason::InputsGone, message)));
                }
                Some(CompactionOutcome::Open) | None => {}
            }
            let has_ended = under_way.is_none();
            if under_way != seen {
                (seen, moved) = (under_way, Instant::now());
            }
            // What moves may also be yet another job of the region.
            if moved.elapsed() >= patience
                || since.elapsed() >= patience.saturating_mul(MOST_PATIENCE)
            {
                self.refused(compactor.node, refusal);
                return None;
            }
            let ended = self.wait(self.job.policy.backoff.0, &refusal).await;
            if ended.is_some() || has_ended {
                return ended;
            }
        }
    }
}
