//! Builds what point reads of old files need, in the background: one file after the other, on the
//! node that leads the group, so that no two build the same.

use std::sync::Arc;
use std::time::Duration;

use tidewater_region_engine::index::Bloom;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Context;
use super::owner::Owner;

/// How often files without an index are looked for. Files that compaction is about to replace are
/// mostly gone by then.
const EVERY: Duration = Duration::from_secs(60);

/// Runs until it is dropped: the term has ended, or the replica stops.
pub async fn run(context: &Context, owner: Arc<Owner>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, when everybody else is starting, too.
    tick.tick().await;
    loop {
        tick.tick().await;
        for hosted in context.shared.regions.all() {
            if hosted.region.files_without_index(&Bloom) == 0 {
                continue;
            }
            let id = hosted.region.id();
            let owner = owner.clone();
            // A task of its own, which runs to its end also when the term ends in the middle:
            // whether its last put succeeded must be found out by whoever knows the content.
            let build = context.tasks.spawn(async move { owner.build_indexes(id).await });
            match build.await {
                Ok(Ok(report)) => {
                    info!(region = %id, built = report.built, bytes = report.bytes, "indexes built");
                }
                Ok(Err(error)) => warn!(region = %id, %error, "indexes are built later"),
                Err(error) => warn!(region = %id, %error, "a build of indexes did not end"),
            }
        }
    }
}
