//! Snapshot files of one group: the current one, and its predecessor while tasks still read it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tidewater_raft_store::snapshot_file::remove_leftovers;
use tidewater_raft_store::types::{Snapshot, SnapshotMeta};
use tidewater_raft_store::{SnapshotFile, SnapshotWriter};
use tracing::info;

use crate::group::snapshot::{SnapshotView, read_meta};

const ENDING: &str = "snapshot";

/// The snapshot files of a directory and the current one.
#[derive(Debug)]
pub struct SnapshotFiles {
    folder: PathBuf,
    current: Mutex<Option<Snapshot>>,
}

impl SnapshotFiles {
    /// Opens a directory: finds its newest snapshot and verifies it. Blocking.
    ///
    /// # Errors
    /// Fails on a damaged newest file; never falls back to an older one: the log between them may
    /// be purged.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        remove_leftovers(&folder)?;
        let current = match names(&folder)?.into_iter().max() {
            None => None,
            Some((_, path)) => {
                let file = SnapshotFile::open(path)?;
                let meta = read_meta(&mut file.reader()?)?;
                Some(Snapshot { meta, snapshot: file })
            }
        };
        if let Some(current) = &current {
            // A predecessor that was being read when the process ended.
            remove_except(&folder, &[Some(current.snapshot.path().to_owned())])?;
        }
        Ok(Self { folder, current: Mutex::new(current) })
    }

    /// Directory of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Newest snapshot.
    pub fn current(&self) -> Option<Snapshot> {
        self.current.lock().clone()
    }

    /// Bytes of the newest snapshot; 0 without one.
    pub fn length(&self) -> u64 {
        self.current.lock().as_ref().map_or(0, |current| current.snapshot.length())
    }

    /// Writes a snapshot durably. Blocking.
    pub fn save(&self, view: &SnapshotView) -> io::Result<Snapshot> {
        let mut writer = SnapshotWriter::create(self.path(&view.meta()))?;
        view.write(&mut writer)?;
        let file = writer.finish()?;
        info!(
            group = %view.group,
            index = view.applied.map_or(0, |id| id.index),
            bytes = file.length(),
            "snapshot written"
        );
        let snapshot = Snapshot { meta: view.meta(), snapshot: file };
        self.make_current(snapshot.clone())?;
        Ok(snapshot)
    }

    /// Makes a received snapshot the current one, and reads it. Blocking.
    pub fn adopt(&self, file: SnapshotFile) -> io::Result<SnapshotView> {
        let view = SnapshotView::read(&mut file.reader()?)?;
        let path = self.path(&view.meta());
        let file = if file.path() == path { file } else { file.rename(path)? };
        self.make_current(Snapshot { meta: view.meta(), snapshot: file })?;
        Ok(view)
    }

    fn make_current(&self, snapshot: Snapshot) -> io::Result<()> {
        let mut current = self.current.lock();
        let newer = |old: &Snapshot| old.meta.last_log_id > snapshot.meta.last_log_id;
        if current.as_ref().is_some_and(newer) {
            return Ok(());
        }
        // A clone may still be sent to a follower. Clones are made under this lock.
        let in_use = current.as_ref().filter(|old| old.snapshot.is_shared());
        let keep = [
            in_use.map(|old| old.snapshot.path().to_owned()),
            Some(snapshot.snapshot.path().to_owned()),
        ];
        *current = Some(snapshot);
        remove_except(&self.folder, &keep)
    }

    fn path(&self, meta: &SnapshotMeta) -> PathBuf {
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        self.folder.join(format!("{index:020}-{term:020}.{ENDING}"))
    }
}

/// Removes the snapshots of a directory, except for these.
fn remove_except(folder: &Path, keep: &[Option<PathBuf>]) -> io::Result<()> {
    for (_, path) in names(folder)? {
        if !keep.contains(&Some(path.clone())) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Snapshot files of a directory, by index and term.
fn names(folder: &Path) -> io::Result<Vec<((u64, u64), PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let numbers = stem
            .split_once('-')
            .and_then(|(index, term)| Some((index.parse().ok()?, term.parse().ok()?)));
        if let Some(numbers) = numbers {
            found.push((numbers, path));
        }
    }
    Ok(found)
}
