//! Snapshot files on disk: each ends with its own length and checksum, and is synced before it is
//! used.
//!
//! The file ends with a trailer of 16 bytes (magic, crc32c and length of the content), so that a
//! truncated or damaged file is recognized wherever it came from. It is written under a temporary
//! name, synced and renamed, and its directory is synced: a name that is visible is durable.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Magic number of the trailer: "TWSNAP" and format version 1.
const MAGIC: [u8; 4] = *b"TWS1";
/// Bytes of the trailer: magic, crc32c (little endian), length (little endian).
const TRAILER_BYTES: u64 = 16;
/// Extension of a file that is still being written; such files are leftovers after a restart.
const TEMPORARY: &str = "partial";
const BUFFER_BYTES: usize = 256 * 1024;

/// Reason why a snapshot file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// A system call failed.
    #[error("cannot {action} snapshot file {path}: {source}", path = path.display())]
    Io {
        /// Operation that failed, as a verb.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The content or the trailer is damaged.
    #[error("snapshot file {path} is damaged: {detail}", path = path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Description of the damage.
        detail: String,
    },
}

impl From<SnapshotFileError> for io::Error {
    fn from(error: SnapshotFileError) -> Self {
        match error {
            SnapshotFileError::Io { ref source, .. } => Self::new(source.kind(), error.to_string()),
            SnapshotFileError::Damaged { .. } => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// A complete, synced snapshot on disk. Cloning copies the description, not the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    path: PathBuf,
    length: u64,
    crc32c: u32,
    users: Arc<()>,
}

impl SnapshotFile {
    /// Opens a file and verifies all of its content. Blocking.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SnapshotFileError> {
        let file = Self::stat(path)?;
        let mut reader = file.reader()?;
        let copied = io::copy(&mut reader, &mut io::sink());
        copied.map_err(|source| match reader.take_damage() {
            Some(damage) => damage,
            None => file.io("read", source),
        })?;
        Ok(file)
    }

    /// Opens a file by its trailer, without reading the content: readers verify the content as they
    /// read it. Blocking.
    pub fn stat(path: impl Into<PathBuf>) -> Result<Self, SnapshotFileError> {
        let path = path.into();
        let read = || -> io::Result<(u64, [u8; TRAILER_BYTES as usize])> {
            let mut file = File::open(&path)?;
            let size = file.metadata()?.len();
            let mut trailer = [0; TRAILER_BYTES as usize];
            if size >= TRAILER_BYTES {
                file.seek(SeekFrom::End(-(TRAILER_BYTES as i64)))?;
                file.read_exact(&mut trailer)?;
            }
            Ok((size, trailer))
        };
        let (size, trailer) = read().map_err(|source| SnapshotFileError::Io {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let damaged = |detail: String| SnapshotFileError::Damaged { path: path.clone(), detail };
        let (length, crc32c) = decode_trailer(&trailer)
            .ok_or_else(|| damaged("it does not end with a snapshot trailer".to_owned()))?;
        if size != length + TRAILER_BYTES {
            return Err(damaged(format!(
                "it holds {} bytes of content, its trailer records {length}",
                size.saturating_sub(TRAILER_BYTES)
            )));
        }
        Ok(Self { path, length, crc32c, users: Arc::default() })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether clones of this description exist: their holders may still read the file.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }

    /// Returns the bytes of content, without the trailer.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the checksum of the content.
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// Opens a reader of the content. The last read fails with [`io::ErrorKind::InvalidData`] when
    /// the checksum does not match. Blocking.
    pub fn reader(&self) -> Result<SnapshotReader, SnapshotFileError> {
        let file = File::open(&self.path).map_err(|source| self.io("open", source))?;
        Ok(SnapshotReader {
            inner: BufReader::with_capacity(BUFFER_BYTES, file),
            file: self.clone(),
            remaining: self.length,
            crc32c: 0,
            damage: None,
        })
    }

    /// Renames the file within its file system, replacing an older file, and syncs both
    /// directories. Blocking.
    pub fn rename(self, path: impl Into<PathBuf>) -> Result<Self, SnapshotFileError> {
        let path = path.into();
        fs::rename(&self.path, &path)
            .and_then(|()| sync_parent(&path))
            .and_then(|()| sync_parent(&self.path))
            .map_err(|source| self.io("rename", source))?;
        Ok(Self { path, ..self })
    }

    /// Removes the file and syncs its directory. Blocking.
    pub fn remove(self) -> Result<(), SnapshotFileError> {
        fs::remove_file(&self.path)
            .and_then(|()| sync_parent(&self.path))
            .map_err(|source| self.io("remove", source))
    }

    fn io(&self, action: &'static str, source: io::Error) -> SnapshotFileError {
        SnapshotFileError::Io { action, path: self.path.clone(), source }
    }
}

fn encode_trailer(length: u64, crc32c: u32) -> [u8; TRAILER_BYTES as usize] {
    let mut trailer = [0; TRAILER_BYTES as usize];
    trailer[..4].copy_from_slice(&MAGIC);
    trailer[4..8].copy_from_slice(&crc32c.to_le_bytes());
    trailer[8..].copy_from_slice(&length.to_le_bytes());
    trailer
}

fn decode_trailer(trailer: &[u8; TRAILER_BYTES as usize]) -> Option<(u64, u32)> {
    let (magic, rest) = trailer.split_first_chunk::<4>()?;
    let (crc32c, rest) = rest.split_first_chunk::<4>()?;
    let (length, _) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC).then(|| (u64::from_le_bytes(*length), u32::from_le_bytes(*crc32c)))
}

/// Reader of a snapshot's content that verifies the content while reading.
#[derive(Debug)]
pub struct SnapshotReader {
    inner: BufReader<File>,
    file: SnapshotFile,
    remaining: u64,
    crc32c: u32,
    damage: Option<String>,
}

impl SnapshotReader {
    /// Returns the damage that made a read fail; `None` when the operating system failed.
    pub fn take_damage(&mut self) -> Option<SnapshotFileError> {
        let detail = self.damage.take()?;
        Some(SnapshotFileError::Damaged { path: self.file.path.clone(), detail })
    }

    fn damaged(&mut self, detail: String) -> io::Error {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("snapshot file {} is damaged: {detail}", self.file.path.display()),
        );
        self.damage = Some(detail);
        error
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..want])?;
        if read == 0 {
            let missing = self.remaining;
            return Err(self.damaged(format!("its last {missing} bytes are missing")));
        }
        self.crc32c = crc32c::crc32c_append(self.crc32c, &buffer[..read]);
        self.remaining -= read as u64;
        if self.remaining == 0 && self.crc32c != self.file.crc32c {
            let found = self.crc32c;
            let expected = self.file.crc32c;
            return Err(self.damaged(format!(
                "its content has checksum {found:08x}, its trailer records {expected:08x}"
            )));
        }
        Ok(read)
    }
}

/// Writer of a snapshot file. Removes the file when dropped without [`SnapshotWriter::finish`].
#[derive(Debug)]
pub struct SnapshotWriter {
    // `None` once finished.
    file: Option<File>,
    buffer: Vec<u8>,
    temporary: PathBuf,
    path: PathBuf,
    length: u64,
    crc32c: u32,
}

impl SnapshotWriter {
    /// Creates a file that becomes visible at `path`; its directory must exist. Blocking.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, SnapshotFileError> {
        let path = path.into();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{TEMPORARY}", uuid::Uuid::new_v4().simple()));
        let temporary = path.with_file_name(name);
        let file = File::create_new(&temporary).map_err(|source| SnapshotFileError::Io {
            action: "create",
            path: temporary.clone(),
            source,
        })?;
        Ok(Self {
            file: Some(file),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            temporary,
            path,
            length: 0,
            crc32c: 0,
        })
    }

    /// Returns the bytes of content so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the checksum of the content so far.
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// Syncs the file, renames it to its path (replacing an older file), and syncs the directory.
    /// Blocking.
    pub fn finish(mut self) -> Result<SnapshotFile, SnapshotFileError> {
        self.publish().map_err(|source| SnapshotFileError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        Ok(SnapshotFile {
            path: self.path.clone(),
            length: self.length,
            crc32c: self.crc32c,
            users: Arc::default(),
        })
    }

    fn publish(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some(mut file) = self.file.take() {
            file.write_all(&encode_trailer(self.length, self.crc32c))?;
            file.sync_all()?;
        }
        fs::rename(&self.temporary, &self.path)?;
        sync_parent(&self.path)
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.length += bytes.len() as u64;
        if bytes.len() >= BUFFER_BYTES {
            if let Some(file) = &mut self.file {
                file.write_all(bytes)?;
            }
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        // Already renamed when finished. Otherwise no other component uses the name.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Removes the temporary files of writers whose process died. Returns how many. Blocking.
pub fn remove_leftovers(folder: &Path) -> Result<usize, SnapshotFileError> {
    let io = |source| SnapshotFileError::Io {
        action: "remove leftovers in the directory of",
        path: folder.to_owned(),
        source,
    };
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|ending| ending == TEMPORARY) {
            fs::remove_file(&path).map_err(io)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Makes the name of a file durable by syncing its directory.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
#[path = "snapshot_file_tests.rs"]
mod tests;
