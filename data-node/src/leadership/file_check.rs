//! Check of the stored files: the leader compares the manifests of its regions with a listing at
//! intervals, and every replica checks the files that it knows to be damaged until they are intact.
//!
//! Without it, a lost object is noticed when a query needs it, and a mended one never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::RegionId;
use tidewater_region_engine::file_meta::FileMeta;
use tidewater_region_engine::region::Phase;
use tidewater_region_engine::storage::StorageError;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::group::damaged_files::stored_damage;
use crate::group::hosted::HostedRegion;
use crate::group::shared::ReplicaState;

/// Longest interval between two checks of a damaged file.
const RECHECK: Duration = Duration::from_secs(10);
/// Bytes of a file that are read at once.
const CHUNK: u64 = 4 << 20;

/// Runs until the replica stops. `every`: interval between two listings of a region.
pub async fn run(shared: Arc<ReplicaState>, every: Duration) {
    let mut ticks = tokio::time::interval(RECHECK.min(every).max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let is_due = shared.leads() && last.elapsed() >= every;
        let checks = async {
            recheck_damaged(&shared).await;
            if is_due {
                check_all(&shared).await;
            }
        };
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = checks => {}
        }
        if is_due {
            last = Instant::now();
        }
    }
}

/// Compares all regions with listings, one after the other.
async fn check_all(shared: &ReplicaState) {
    for hosted in shared.regions.current() {
        if !shared.leads() || hosted.region.stats().phase == Phase::Loading {
            continue;
        }
        let region = hosted.descriptor.region_id;
        if let Err(error) = check_region(shared, &hosted).await {
            debug!(group = %shared.group, %region, %error, "failed to list the files of a region");
        }
    }
}

async fn check_region(shared: &ReplicaState, hosted: &HostedRegion) -> Result<(), StorageError> {
    let mut by_directory: BTreeMap<_, Vec<FileMeta>> = BTreeMap::new();
    for file in hosted.region.files() {
        by_directory.entry(file.origin.path().join("data")).or_default().push(file);
    }
    for (directory, files) in by_directory {
        let listed = shared.env.storage.list(&directory, None).await?;
        let sizes: BTreeMap<_, u64> =
            listed.into_iter().map(|object| (object.location, object.size)).collect();
        for file in files {
            let damage = stored_damage(&file, sizes.get(&file.path()).copied());
            // A file that was compacted since may be deleted.
            if let Some(damage) = damage.filter(|_| is_live(hosted, &file)) {
                let region = hosted.descriptor.region_id;
                let object = shared.env.storage.name(&file.path());
                warn!(group = %shared.group, %region, object, damage, "file of a region is damaged");
                shared.damaged.record(region, object, damage, Instant::now());
            }
        }
    }
    Ok(())
}

fn is_live(hosted: &HostedRegion, file: &FileMeta) -> bool {
    hosted.region.files().iter().any(|live| live.file_id == file.file_id)
}

/// Checks the files that are known to be damaged, and forgets those that are intact or no longer live.
async fn recheck_damaged(shared: &ReplicaState) {
    for region in shared.damaged.regions() {
        for object in shared.damaged.of_region(region).into_keys() {
            recheck(shared, region, &object).await;
        }
    }
}

async fn recheck(shared: &ReplicaState, region: RegionId, object: &str) {
    let files = shared.regions.get(region).map(|hosted| hosted.region.files());
    let name = |file: &&FileMeta| {
        let path = file.path();
        shared.env.storage.name(&path) == object || path.as_ref() == object
    };
    let file = files.iter().flatten().find(name);
    let damage = match file {
        // Compacted, truncated or dropped since; or no data file.
        None => None,
        Some(file) => match stored_state(shared, file).await {
            Ok(damage) => damage,
            Err(error) => {
                debug!(group = %shared.group, %region, object, %error, "failed to check a file");
                return;
            }
        },
    };
    match damage {
        Some(damage) => {
            shared.damaged.record(region, object.to_owned(), damage, Instant::now());
        }
        None => {
            info!(group = %shared.group, %region, object, "file of a region is intact or not needed");
            shared.damaged.remove(region, object);
        }
    }
}

/// Reads a file completely and compares it with its manifest entry; returns the damage.
async fn stored_state(
    shared: &ReplicaState,
    file: &FileMeta,
) -> Result<Option<String>, StorageError> {
    let storage = &shared.env.storage;
    let path = file.path();
    let size = match storage.head(&path).await {
        Ok(object) => Some(object.size),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    if let Some(damage) = stored_damage(file, size) {
        return Ok(Some(damage));
    }
    let mut checksum = 0;
    let mut start = 0;
    while start < file.size {
        let end = file.size.min(start + CHUNK);
        let bytes = storage.get_range(&path, start..end).await?;
        checksum = crc32c::crc32c_append(checksum, &bytes);
        start = end;
    }
    Ok((checksum != file.checksum).then(|| "its content does not match its checksum".to_owned()))
}
