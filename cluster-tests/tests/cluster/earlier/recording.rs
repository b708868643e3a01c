//! The archive with the recorded cluster.

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use tidewater_cluster_tests::{HarnessError, Result};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::messages::Messages;

/// Path of the archive in the clone.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/earlier/release.zip");
/// Name of the descriptors in the archive.
const MESSAGES: &str = "messages.bin";

/// Directories of a cluster of an earlier release, and the descriptors of its messages.
pub(super) struct Recording(ZipArchive<Cursor<Vec<u8>>>);

impl Recording {
    /// Opens the archive of this clone.
    pub(super) fn open() -> Result<Self> {
        let bytes = fs::read(PATH).map_err(HarnessError::io(format!("read {PATH}")))?;
        ZipArchive::new(Cursor::new(bytes)).map(Self).map_err(invalid)
    }

    /// Copies the directories into that of a cluster.
    pub(super) fn unpack(&self, directory: &Path) -> Result<()> {
        self.0.clone().extract(directory).map_err(invalid)
    }

    /// Returns the messages as the release knows them.
    pub(super) fn messages(&self) -> Result<Messages> {
        let mut bytes = Vec::new();
        let mut archive = self.0.clone();
        let mut file = archive.by_name(MESSAGES).map_err(invalid)?;
        file.read_to_end(&mut bytes).map_err(HarnessError::io(format!("read {MESSAGES}")))?;
        Messages::new(FileDescriptorSet::decode(bytes.as_slice()).map_err(invalid)?)
    }
}

/// Replaces the archive: the directories below `root` with these names, and the descriptors.
pub(super) fn replace(
    root: &Path,
    directories: &[&str],
    messages: &FileDescriptorSet,
) -> Result<()> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for directory in directories {
        for path in files(&root.join(directory))? {
            let bytes = fs::read(&path).map_err(HarnessError::io("read a recorded file"))?;
            let name = path.strip_prefix(root).map_err(invalid)?.display().to_string();
            add(&mut archive, &name, &bytes)?;
        }
    }
    add(&mut archive, MESSAGES, &messages.encode_to_vec())?;
    let bytes = archive.finish().map_err(invalid)?.into_inner();
    println!("{PATH}: {} bytes", bytes.len());
    let mut file = File::create(PATH).map_err(HarnessError::io(format!("create {PATH}")))?;
    file.write_all(&bytes).map_err(HarnessError::io(format!("write {PATH}")))
}

fn add(archive: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) -> Result<()> {
    let options = SimpleFileOptions::default().compression_level(Some(9));
    archive.start_file(name, options).map_err(invalid)?;
    archive.write_all(bytes).map_err(HarnessError::io(format!("archive {name}")))
}

/// Returns all files below a directory, without the messages that RocksDB logs.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).map_err(HarnessError::io("list a recorded directory"))?;
    for entry in entries {
        let path = entry.map_err(HarnessError::io("list a recorded directory"))?.path();
        let is_log = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("LOG"));
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if !is_log {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn invalid(error: impl ToString) -> HarnessError {
    HarnessError::violated(format!("the recording: {}", error.to_string()))
}
