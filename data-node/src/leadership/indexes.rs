//! Background builds of the indexes that point reads of files use: one file after the other, on the
//! node that leads the group, so that no two nodes build the same index.

use std::sync::Arc;
use std::time::Duration;

use tidewater_region_engine::index::Bloom;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::OwnerContext;
use super::owner::Owner;

/// Interval between checks for files without an index: long enough that compaction has usually replaced
/// the files that it was about to replace.
const BUILD_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until it is dropped: the term has ended, or the replica stops.
pub async fn run(context: &OwnerContext, owner: Arc<Owner>) {
    let mut tick = interval(BUILD_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Skip the first tick, which is immediate: the other loops of the term start now, too.
    tick.tick().await;
    loop {
        tick.tick().await;
        for hosted in context.shared.regions.current() {
            if hosted.region.files_without_index(&Bloom) == 0 {
                continue;
            }
            let id = hosted.region.id();
            let owner = owner.clone();
            // A task of its own, which runs to its end even when the term ends first: only the task
            // that knows the content can find out whether its last put succeeded.
            let build = context.tasks.spawn(async move { owner.build_indexes(id).await });
            match build.await {
                Ok(Ok(report)) => {
                    info!(region = %id, built = report.built, bytes = report.bytes, "indexes built");
                }
                Ok(Err(error)) => warn!(region = %id, %error, "index build failed; retrying later"),
                Err(error) => warn!(region = %id, %error, "index build task failed"),
            }
        }
    }
}
