//! Snapshot files of one group: the current one, and the one before for whoever still reads it.

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

/// See the module's head.
#[derive(Debug)]
pub struct SnapshotFiles {
    folder: PathBuf,
    current: Mutex<Option<Snapshot>>,
}

impl SnapshotFiles {
    /// Finds the newest snapshot of a folder and verifies it. Blocking.
    ///
    /// # Errors
    /// A damaged newest file is an error, never a silent fall-back to an older one: the log between
    /// them may be purged.
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
        Ok(Self { folder, current: Mutex::new(current) })
    }

    /// Where the files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The newest snapshot.
    pub fn current(&self) -> Option<Snapshot> {
        self.current.lock().clone()
    }

    /// Writes a snapshot; it is durable when this returns. Blocking.
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

    /// Takes a snapshot that came from elsewhere as the current one, and reads it. Blocking.
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
        let keep = [
            current.as_ref().map(|old| old.snapshot.path().to_owned()),
            Some(snapshot.snapshot.path().to_owned()),
        ];
        *current = Some(snapshot);
        for (_, path) in names(&self.folder)? {
            if !keep.contains(&Some(path.clone())) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, meta: &SnapshotMeta) -> PathBuf {
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        self.folder.join(format!("{index:020}-{term:020}.{ENDING}"))
    }
}

/// Snapshot files of a folder, by index and term.
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
