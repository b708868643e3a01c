//! Free space of the disks of a data node: of its data directory, and of a local object store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;
use tokio_util::sync::CancellationToken;

/// Interval between two measurements.
const INTERVAL: Duration = Duration::from_secs(2);

/// Free bytes of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FreeSpace {
    kind: ProblemKind,
    /// Description of the directory's content.
    content: &'static str,
    directory: PathBuf,
    /// `None`: not measured yet.
    free: Option<u64>,
}

/// Free space of all disks, measured by a task: a disk that does not answer must not delay heartbeats.
#[derive(Debug)]
pub(in crate::node) struct DiskSpace {
    low: u64,
    disks: Mutex<Vec<FreeSpace>>,
}

impl DiskSpace {
    /// `low`: free bytes below which a disk is a problem. `store`: the directory of a local object store.
    pub(in crate::node) fn new(low: u64, data_dir: &Path, store: Option<PathBuf>) -> Arc<Self> {
        let data = FreeSpace {
            kind: ProblemKind::DiskLow,
            content: "its data directory",
            directory: data_dir.to_owned(),
            free: None,
        };
        let store = store.map(|directory| FreeSpace {
            kind: ProblemKind::StoreLow,
            content: "the object store",
            directory,
            free: None,
        });
        Arc::new(Self { low, disks: Mutex::new([data].into_iter().chain(store).collect()) })
    }

    /// Measures at intervals until `closing`.
    pub(in crate::node) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let this = self.clone();
            let measured = tokio::task::spawn_blocking(move || this.measure());
            tokio::select! {
                () = closing.cancelled() => return,
                _ = measured => {}
            }
        }
    }

    fn measure(&self) {
        let mut disks = self.disks.lock().clone();
        for disk in &mut disks {
            match rustix::fs::statvfs(&disk.directory) {
                Ok(stat) => disk.free = Some(stat.f_bavail.saturating_mul(stat.f_frsize)),
                Err(error) => {
                    let directory = disk.directory.display();
                    tracing::debug!(%directory, %error, "failed to read the free space of a disk");
                }
            }
        }
        *self.disks.lock() = disks;
    }

    /// Returns the disks with little space.
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.disks.lock().iter().filter_map(|disk| low_space(disk, self.low)).collect()
    }
}

fn low_space(disk: &FreeSpace, low: u64) -> Option<Problem> {
    let free = disk.free.filter(|free| *free < low)?;
    let detail = format!(
        "the disk of {} ({}) has {} MiB left, less than --disk-low {} MiB",
        disk.content,
        disk.directory.display(),
        free >> 20,
        low >> 20
    );
    Some(Problem::new(disk.kind, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_with_little_space_is_a_problem() {
        let kinds = |low, free: [Option<u64>; 2]| -> Vec<ProblemKind> {
            let space = DiskSpace::new(low, Path::new("/d"), Some("/s".into()));
            for (disk, free) in space.disks.lock().iter_mut().zip(free) {
                disk.free = free;
            }
            space.problems().into_iter().map(|problem| problem.kind).collect()
        };
        let mib = |count: u64| Some(count << 20);
        assert_eq!(kinds(100 << 20, [None, None]), []);
        assert_eq!(kinds(100 << 20, [mib(100), mib(99)]), [ProblemKind::StoreLow]);
        let both = [ProblemKind::DiskLow, ProblemKind::StoreLow];
        assert_eq!(kinds(100 << 20, [mib(0), mib(0)]), both);
        assert_eq!(kinds(0, [mib(0), mib(0)]), [], "0 disables it");
    }

    #[test]
    fn free_space_of_directories_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let space = DiskSpace::new(u64::MAX, directory.path(), Some("/does/not/exist".into()));
        space.measure();
        let problems = space.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].detail.contains("--disk-low"), "{problems:?}");
    }
}
