//! Reads of the database: entries that are no longer in memory, and all groups at start.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use rocksdb::{Direction, IteratorMode, ReadOptions};
use tidewater_common::ids::GroupId;
use tidewater_proto::v1;

use super::database::Database;
use super::error::StoreError;
use super::keys::{self, StateKind, log_key, split_log_key, state_key, state_key_group};
use super::state::{GroupState, InMemoryLog};
use super::tail::{LogTail, entry_bytes};
use crate::types::{Entry, LogId, wire};

/// Reads the entries `start..end`, limited to `max_bytes` but at least one. Entries at the
/// beginning may be missing only when they were purged concurrently. Blocking.
pub(super) fn read_stored(
    database: &Database,
    group: &GroupState,
    start: u64,
    end: u64,
    max_bytes: usize,
) -> Result<Vec<Entry>, StoreError> {
    let id = group.id;
    let mut records = Vec::new();
    database.read(|db| {
        let Some(family) = db.cf_handle(keys::LOG) else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(log_key(id, end));
        options.set_readahead_size(1024 * 1024);
        let from = log_key(id, start);
        let mut bytes = 0;
        for record in
            db.iterator_cf_opt(family, options, IteratorMode::From(&from, Direction::Forward))
        {
            let (key, value) = record?;
            bytes += value.len();
            records.push((key, value));
            if bytes > max_bytes {
                break;
            }
        }
        Ok(())
    })?;
    let live_from = group.log.lock().first_index();
    let mut entries: Vec<Entry> = Vec::with_capacity(records.len());
    for (key, value) in records {
        let (_, index) = split_log_key(&key).ok_or_else(|| damaged(id, "a key is malformed"))?;
        let entry = decode_entry(id, index, value.into_vec())?;
        if let Some(last) = entries.last()
            && last.log_id.index + 1 != index
        {
            let expected = last.log_id.index + 1;
            if index > live_from {
                return Err(hole(id, expected.max(live_from), index));
            }
            // The space of purged entries is released file by file, in any order.
            entries.clear();
        }
        entries.push(entry);
    }
    let found = entries.first().map_or(end, |entry| entry.log_id.index);
    if found > start.max(live_from) {
        return Err(hole(id, start.max(live_from), found));
    }
    // The last record may exceed the limit.
    let mut bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        bytes += entry_bytes(entry);
        bytes <= max_bytes
    });
    let keep = fitting.count().max(1);
    entries.truncate(keep);
    Ok(entries)
}

/// Loads all groups with stored data. Blocking.
pub(super) fn load_groups(
    database: &Database,
    cache_bytes: usize,
) -> Result<BTreeMap<GroupId, InMemoryLog>, StoreError> {
    let mut groups = BTreeMap::new();
    for id in stored_groups(database)? {
        groups.insert(id, load_group(database, id, cache_bytes)?);
    }
    Ok(groups)
}

fn stored_groups(database: &Database) -> Result<Vec<GroupId>, StoreError> {
    let mut groups = Vec::new();
    database.read(|db| {
        if let Some(family) = db.cf_handle(keys::STATE) {
            for record in db.iterator_cf(family, IteratorMode::Start) {
                groups.extend(state_key_group(&record?.0));
            }
        }
        let Some(family) = db.cf_handle(keys::LOG) else { return Ok(()) };
        // One seek per group instead of one step per entry.
        let mut iterator = db.raw_iterator_cf(family);
        iterator.seek_to_first();
        while let Some((id, _)) = iterator.key().and_then(split_log_key) {
            groups.push(id);
            let Some(next) = id.get().checked_add(1) else { break };
            iterator.seek(log_key(GroupId(next), 0));
        }
        iterator.status()
    })?;
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Reads the purge point of a group as it is in the database. Blocking.
pub(super) fn stored_purge_point(
    database: &Database,
    id: GroupId,
) -> Result<Option<LogId>, StoreError> {
    stored_log_id(database, id, StateKind::Purged)
}

fn stored_state(
    database: &Database,
    id: GroupId,
    kind: StateKind,
) -> Result<Option<Vec<u8>>, StoreError> {
    database.read(|db| {
        let Some(family) = db.cf_handle(keys::STATE) else { return Ok(None) };
        db.get_cf(family, state_key(id, kind))
    })
}

fn stored_log_id(
    database: &Database,
    id: GroupId,
    kind: StateKind,
) -> Result<Option<LogId>, StoreError> {
    let Some(bytes) = stored_state(database, id, kind)? else { return Ok(None) };
    let stored =
        v1::RaftLogId::decode(bytes.as_slice()).map_err(|error| damaged_state(id, &error))?;
    Ok(Some(wire::log_id_from_wire(&stored)))
}

fn load_group(
    database: &Database,
    id: GroupId,
    cache_bytes: usize,
) -> Result<InMemoryLog, StoreError> {
    let vote = match stored_state(database, id, StateKind::Vote)? {
        Some(bytes) => {
            let vote = v1::RaftVote::decode(bytes.as_slice())
                .map_err(|error| damaged_state(id, &error))?;
            Some(wire::vote_from_wire(&vote))
        }
        None => None,
    };
    let committed = stored_log_id(database, id, StateKind::Committed)?;
    let purged = stored_purge_point(database, id)?;
    let (first, last) = ends(database, id)?;
    let live_from = purged.map_or(0, |purged| purged.index + 1);
    let last = match last {
        Some((index, value)) if index >= live_from => Some(decode_entry(id, index, value)?.log_id),
        _ => None,
    };
    if purged.is_some() && last.is_some() {
        // The first entry after the purged ones must exist, or the log begins with a hole.
        let stored = database.read(|db| {
            let Some(family) = db.cf_handle(keys::LOG) else { return Ok(None) };
            db.get_pinned_cf(family, log_key(id, live_from)).map(|value| value.map(|_| ()))
        })?;
        if stored.is_none() {
            return Err(damaged(id, &format!("entry {live_from}, the first, is missing")));
        }
    }
    let next = last.or(purged).map_or(0, |id| id.index + 1);
    Ok(InMemoryLog {
        vote,
        committed,
        purged,
        begin: first.unwrap_or(0),
        last,
        tail: LogTail::new(cache_bytes, next),
        removed: false,
    })
}

/// Index of the first stored entry; index and bytes of the last.
type Ends = (Option<u64>, Option<(u64, Vec<u8>)>);

fn ends(database: &Database, id: GroupId) -> Result<Ends, StoreError> {
    let of_group = |key: &[u8]| split_log_key(key).filter(|(group, _)| *group == id).map(|k| k.1);
    database.read(|db| {
        let Some(family) = db.cf_handle(keys::LOG) else { return Ok((None, None)) };
        let mut iterator = db.raw_iterator_cf(family);
        iterator.seek(log_key(id, 0));
        let first = iterator.key().and_then(of_group);
        iterator.status()?;
        iterator.seek_for_prev(log_key(id, u64::MAX));
        let last = match (iterator.key().and_then(of_group), iterator.value()) {
            (Some(index), Some(value)) => Some((index, value.to_vec())),
            _ => None,
        };
        iterator.status()?;
        Ok((first, last))
    })
}

fn decode_entry(group: GroupId, index: u64, value: Vec<u8>) -> Result<Entry, StoreError> {
    let entry = v1::RaftEntry::decode(Bytes::from(value))
        .map_err(|error| error.to_string())
        .and_then(|entry| wire::entry_from_wire(entry).map_err(|error| error.to_string()))
        .map_err(|error| damaged(group, &format!("entry {index}: {error}")))?;
    if entry.log_id.index != index {
        let stored_index = entry.log_id.index;
        return Err(damaged(group, &format!("entry {stored_index} is stored at {index}")));
    }
    Ok(entry)
}

fn damaged(group: GroupId, message: &str) -> StoreError {
    StoreError::GroupDamaged { group, message: message.to_owned() }
}

fn damaged_state(group: GroupId, error: &prost::DecodeError) -> StoreError {
    damaged(group, &format!("its state: {error}"))
}

fn hole(group: GroupId, expected: u64, found: u64) -> StoreError {
    damaged(group, &format!("entries {expected} to before {found} are missing"))
}
