//! Messages in the directories of stopped nodes.

use std::path::Path;

use prost::Message;
use rocksdb::{DB, IteratorMode, Options};
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result};
use tidewater_proto::v1::{RaftEntry, raft_entry::Payload};

/// Part of a node's directory.
#[derive(Debug)]
pub(super) enum Stored {
    /// A message of this name.
    Message { name: &'static str, bytes: Vec<u8> },
    /// Description of a row with a key or a codec of a later release.
    Foreign(String),
}

/// Bytes of codec and checksum before the payload of a row.
const FRAME: usize = 5;
/// Prefixes of the keys of framed rows that are messages, with their names.
const MESSAGES: [(&str, &str); 8] = [
    ("row/meta/header", "MetaHeader"),
    ("row/meta/table/", "TableRecord"),
    ("row/meta/group/", "Group"),
    ("row/meta/node/", "NodeRecord"),
    ("row/meta/outcome/", "OutcomeRecord"),
    ("row/meta/hook/", "Hook"),
    ("row/meta/cursor/", "HookCursor"),
    ("row/meta/delta/", "CatalogDelta"),
];
/// Prefixes of the keys of other framed rows, with their highest codecs.
const CODECS: [(&str, u8); 3] =
    [("row/catalog/version", 1), ("row/catalog/next_route_id", 1), ("row/catalog/route/", 2)];
/// Keys of the two records beside the rows. They have golden bytes in the meta node's tests.
const RECORDS: [&str; 2] = ["applied", "membership"];

/// Reads the logs of all groups, and the rows of the meta group.
pub(super) fn read(cluster: &Cluster) -> Result<Vec<Stored>> {
    let mut found = Vec::new();
    for node in cluster.meta.iter().chain(&cluster.data) {
        let directory = node.spec.data_dir.as_deref().unwrap_or(Path::new("")).join("log");
        let families = DB::list_cf(&Options::default(), &directory).map_err(unreadable)?;
        let database = DB::open_cf_for_read_only(&Options::default(), &directory, &families, false)
            .map_err(unreadable)?;
        read_family(&database, "raft_log", |key, value| read_entry(key, value, &mut found))?;
        read_family(&database, "state", |key, value| {
            found.extend(read_row(&String::from_utf8_lossy(key), &value));
            Ok(())
        })?;
    }
    Ok(found)
}

/// Reads a column family; data nodes have no `state`.
fn read_family(
    database: &DB,
    family: &str,
    mut read: impl FnMut(&[u8], Vec<u8>) -> Result<()>,
) -> Result<()> {
    let Some(family) = database.cf_handle(family) else { return Ok(()) };
    for row in database.iterator_cf(family, IteratorMode::Start) {
        let (key, value) = row.map_err(unreadable)?;
        read(&key, value.into_vec())?;
    }
    Ok(())
}

/// Reads an entry; its key begins with the number of the group.
fn read_entry(key: &[u8], value: Vec<u8>, found: &mut Vec<Stored>) -> Result<()> {
    let entry = RaftEntry::decode(value.as_slice()).map_err(unreadable)?;
    found.push(Stored::Message { name: "RaftEntry", bytes: value });
    if let Some(Payload::Command(command)) = entry.payload {
        let is_meta = key.starts_with(&0_u64.to_be_bytes());
        let name = if is_meta { "MetaCommand" } else { "GroupEntry" };
        found.push(Stored::Message { name, bytes: command.into() });
    }
    Ok(())
}

/// Returns the content of a row; `None` when it is not a message, and its codec is known.
fn read_row(key: &str, value: &[u8]) -> Option<Stored> {
    let codec = value.first().copied().unwrap_or_default();
    if let Some((_, name)) = MESSAGES.iter().find(|(prefix, _)| key.starts_with(prefix)) {
        return Some(match value.get(FRAME..) {
            Some(payload) if codec == 1 => Stored::Message { name, bytes: payload.to_vec() },
            _ => Stored::Foreign(format!("{name}: codec {codec}")),
        });
    }
    match CODECS.iter().find(|(prefix, _)| key.starts_with(prefix)) {
        Some((_, highest)) if (1..=*highest).contains(&codec) => None,
        Some((prefix, _)) => Some(Stored::Foreign(format!("{prefix}: codec {codec}"))),
        None if RECORDS.contains(&key) => None,
        None => Some(Stored::Foreign(format!("row {key}"))),
    }
}

fn unreadable(error: impl ToString) -> HarnessError {
    HarnessError::violated(format!("a directory is not readable: {}", error.to_string()))
}
