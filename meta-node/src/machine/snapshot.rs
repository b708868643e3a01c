//! Snapshot files of group 0.
//!
//! Content: length-prefixed (u32, big endian) parts: the snapshot's meta message, then key and
//! value of each row. The file's trailer has a checksum of the content.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use prost::Message;
use tidewater_proto::v1;
use tidewater_raft_store::snapshot_file::remove_leftovers;
use tidewater_raft_store::types::{Snapshot, SnapshotMeta, wire};
use tidewater_raft_store::{SnapshotFile, SnapshotWriter};

use super::StateError;
use crate::catalog::{MetaState, StateRow};

const PREFIX: &str = "catalog-";
/// Maximum length of a part, in bytes. Keys and records are far smaller: a greater length means that
/// the file is not a catalog snapshot.
const LONGEST_PART: usize = 256 * 1024 * 1024;

/// Directory of group 0's snapshots. Keeps the newest snapshot, and the previous one for transfers in
/// progress.
#[derive(Debug)]
pub(super) struct SnapshotDir {
    path: PathBuf,
    kept: Mutex<KeptSnapshots>,
}

#[derive(Debug, Default)]
struct KeptSnapshots {
    newest: Option<Snapshot>,
    previous: Option<PathBuf>,
}

impl SnapshotDir {
    /// Opens the directory and finds the newest snapshot. Blocking.
    pub(super) fn open(path: PathBuf) -> Result<Self, StateError> {
        fs::create_dir_all(&path)?;
        remove_leftovers(&path)?;
        let mut newest: Option<Snapshot> = None;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            let file = SnapshotFile::open(entry.path())?;
            let meta = read_meta(&file)?;
            if newest.as_ref().is_none_or(|known| known.meta.last_log_id < meta.last_log_id) {
                newest = Some(Snapshot { meta, snapshot: file });
            }
        }
        let dir = Self { path, kept: Mutex::new(KeptSnapshots { newest, previous: None }) };
        dir.remove_others();
        Ok(dir)
    }

    /// The newest snapshot.
    pub(super) fn current(&self) -> Option<Snapshot> {
        self.kept.lock().newest.clone()
    }

    /// Writes a state to a file. Blocking.
    pub(super) fn write(
        &self,
        state: &MetaState,
        meta: SnapshotMeta,
    ) -> Result<Snapshot, StateError> {
        let mut writer = SnapshotWriter::create(self.name(&meta))?;
        write_part(&mut writer, &wire::snapshot_meta_to_wire(&meta).encode_to_vec())?;
        for (key, value) in state.rows()? {
            write_part(&mut writer, &key)?;
            write_part(&mut writer, &value)?;
        }
        let snapshot = Snapshot { meta, snapshot: writer.finish()? };
        self.adopt(snapshot.clone());
        Ok(snapshot)
    }

    /// Reads a received snapshot and keeps its file under its final name. Blocking.
    pub(super) fn install(
        &self,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<(MetaState, Vec<StateRow>), StateError> {
        let (state, rows) = read(&meta, &file)?;
        let name = self.name(&meta);
        // After a restart, openraft passes the file that is already kept here.
        let file = if file.path() == name { file } else { file.rename(name)? };
        self.adopt(Snapshot { meta, snapshot: file });
        Ok((state, rows))
    }

    fn name(&self, meta: &SnapshotMeta) -> PathBuf {
        let (term, index) = meta
            .last_log_id
            .map(|id| wire::log_id_to_wire(&id))
            .map_or((0, 0), |id| (id.term, id.index));
        self.path.join(format!("{PREFIX}{term:020}-{index:020}"))
    }

    fn adopt(&self, snapshot: Snapshot) {
        {
            let mut kept = self.kept.lock();
            let known = kept.newest.as_ref();
            let older =
                known.is_some_and(|known| known.meta.last_log_id > snapshot.meta.last_log_id);
            if !older {
                let replaced = known.map(|known| known.snapshot.path().to_owned());
                // Keeping the same file again replaces nothing.
                if let Some(path) = replaced.filter(|path| path != snapshot.snapshot.path()) {
                    kept.previous = Some(path);
                }
                kept.newest = Some(snapshot);
            }
        }
        self.remove_others();
    }

    /// Deletes older snapshots. A file that cannot be deleted is retried at the next call.
    fn remove_others(&self) {
        let keep = {
            let kept = self.kept.lock();
            let newest = kept.newest.as_ref().map(|known| known.snapshot.path().to_owned());
            [newest, kept.previous.clone()]
        };
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
            let partial = entry.path().extension().is_some();
            if ours && !partial && !keep.contains(&Some(entry.path())) {
                remove(&entry.path());
            }
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "failed to remove an old catalog snapshot");
    }
}

/// Reads a snapshot to its end, and checks that it has this metadata. Blocking.
pub(super) fn read(
    meta: &SnapshotMeta,
    file: &SnapshotFile,
) -> Result<(MetaState, Vec<StateRow>), StateError> {
    let mut reader = file.reader()?;
    let found = decode_meta(&part(&mut reader)?.ok_or_else(|| damaged("it is empty"))?)?;
    if found != *meta {
        return Err(damaged("its log id or membership differs from the one in the request"));
    }
    let mut rows = Vec::new();
    while let Some(key) = part(&mut reader)? {
        let value = part(&mut reader)?.ok_or_else(|| damaged("its last row has no value"))?;
        rows.push((key, value));
    }
    let state = MetaState::from_rows(rows.iter().cloned())?;
    Ok((state, rows))
}

fn read_meta(file: &SnapshotFile) -> Result<SnapshotMeta, StateError> {
    let first = part(&mut file.reader()?)?.ok_or_else(|| damaged("it is empty"))?;
    decode_meta(&first)
}

fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, StateError> {
    let meta = v1::SnapshotMeta::decode(bytes).map_err(|error| damaged(&error.to_string()))?;
    wire::snapshot_meta_from_wire(meta).map_err(|error| damaged(&error.to_string()))
}

fn write_part(writer: &mut impl Write, bytes: &[u8]) -> Result<(), StateError> {
    let length = u32::try_from(bytes.len()).map_err(|_| damaged("a record is too long"))?;
    writer.write_all(&length.to_be_bytes())?;
    writer.write_all(bytes)?;
    Ok(())
}

/// Reads the next part; `None` at the end of the file.
fn part(reader: &mut impl Read) -> Result<Option<Vec<u8>>, StateError> {
    let mut length = [0; 4];
    match reader.read(&mut length)? {
        0 => return Ok(None),
        read => reader.read_exact(&mut length[read..]).map_err(read_error)?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_PART {
        return Err(damaged("a part is too long"));
    }
    // The buffer grows with the bytes read, not with the stored length.
    let mut bytes = Vec::new();
    let read = reader.take(length as u64).read_to_end(&mut bytes)?;
    if read < length {
        return Err(damaged("it is truncated"));
    }
    Ok(Some(bytes))
}

fn read_error(error: io::Error) -> StateError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is truncated"),
        _ => StateError::Io(error),
    }
}

fn damaged(problem: &str) -> StateError {
    StateError::Snapshot(problem.to_owned())
}
