//! Values shared by the tests of this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::backoff::Backoff;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{
    ColumnId, Epoch, FileId, GroupId, Incarnation, JobId, ManifestVersion, OwnerEpoch, RegionId,
    SchemaVersion, Sequence, TableId, Term, WriterId,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use uuid::Uuid;

use super::RequiredProgress;
use super::{ActionKind, Author, Change, Delta, Edit, ManifestOptions};
use crate::env::{EngineOptions, IdSource, RegionEnv};
use crate::file_meta::{FileMeta, FileTail, IndexMeta};
use crate::layout::RegionDir;
use crate::memory::MemoryBudget;
use crate::storage::Storage;

pub(crate) const DIR: RegionDir =
    RegionDir { table_id: TableId(3), region_id: RegionId(12), incarnation: Incarnation(1) };

pub(crate) const GROUP: GroupId = GroupId(5);

/// Counts up, so that runs are reproducible.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl IdSource for Counter {
    fn random(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1)
    }

    fn at(&self, time_ms: u64) -> Uuid {
        file_id(time_ms, self.0.fetch_add(1, Ordering::Relaxed)).0
    }
}

impl Clock for Counter {
    fn now_ms(&self) -> u64 {
        1_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Returns an environment without pauses; a checkpoint every four deltas.
pub(crate) fn env(storage: Storage) -> RegionEnv {
    let manifest = ManifestOptions {
        checkpoint_every: 4,
        backoff: Backoff::NONE,
        ..ManifestOptions::default()
    };
    let options = EngineOptions { manifest, ..EngineOptions::default() };
    let clock = Arc::new(Counter::default());
    // Ids of several environments over one store must differ.
    RegionEnv::new(storage, clock, Arc::new(crate::env::SystemIds), MemoryBudget::new(1), options)
}

pub(crate) fn owner(term: u64) -> OwnerEpoch {
    OwnerEpoch { move_epoch: 0, term: Term(term) }
}

pub(crate) fn schema(version: u32) -> TableSchema {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    TableSchema::new(
        SchemaVersion(version),
        vec![column(1, "id", ColumnType::Int64, false), column(2, "text", ColumnType::Utf8, true)],
        vec![ColumnId(1)],
        None,
        ColumnId(3),
    )
    .unwrap()
}

/// Returns a UUIDv7 of that time.
pub(crate) fn file_id(time_ms: u64, number: u64) -> FileId {
    let mut tail = [0; 10];
    tail[2..].copy_from_slice(&number.to_be_bytes());
    FileId(uuid::Builder::from_unix_timestamp_millis(time_ms, &tail).into_uuid())
}

/// Returns a file of this region, created at 1,000,000 ms + number, with sequences 10 x number to
/// 10 x number + 9.
pub(crate) fn file(number: u64) -> FileMeta {
    FileMeta {
        file_id: file_id(1_000_000 + number, number),
        origin: DIR,
        clip: KeyRange::whole(),
        level: 0,
        size: 4_096,
        rows: 10,
        row_groups: 1,
        min_key: vec![0x80, 1],
        max_key: vec![0x80, 9],
        time: None,
        stored_min_sequence: Sequence(number * 10),
        stored_max_sequence: Sequence(number * 10 + 9),
        stored_min_epoch: Epoch(0),
        stored_max_epoch: Epoch(0),
        deletes: 0,
        one_version_per_key: true,
        schema_version: SchemaVersion(1),
        indexes: Vec::new(),
        stamp: None,
        checksum: 0xdead_beef,
        tail: FileTail { length: 512, checksum: 7 },
    }
}

pub(crate) fn index(number: u64) -> IndexMeta {
    IndexMeta {
        index_id: file_id(2_000_000 + number, number).0,
        kind: "bloom".to_owned(),
        schema_version: SchemaVersion(1),
        size: 100,
        checksum: 5,
    }
}

pub(crate) fn fence(term: u64) -> Change {
    let fence = ActionKind::Fence {
        owner: owner(term),
        group: GROUP,
        required: RequiredProgress::default(),
    };
    Change::new(Author::Owner(owner(term)), vec![fence])
}

pub(crate) fn create(term: u64) -> Change {
    let actions = vec![
        ActionKind::Alter { schema: Box::new(schema(1)), options: TableOptions::upsert() },
        ActionKind::PartitionExprChange { range: KeyRange::whole() },
    ];
    Change::new(Author::Owner(owner(term)), actions)
}

/// Returns a flush of that file with all its sequences.
pub(crate) fn flush(term: u64, number: u64) -> Change {
    let file = file(number);
    let flushed = Some(file.max_sequence());
    by_owner(term, Edit { add: vec![file], flushed, ..Edit::default() })
}

pub(crate) fn by_owner(term: u64, edit: Edit) -> Change {
    Change::new(Author::Owner(owner(term)), vec![ActionKind::Edit(edit)])
}

pub(crate) fn by_job(edit: Edit) -> Change {
    let job = JobId(Uuid::from_u128(77));
    Change::new(Author::Job(job), vec![ActionKind::Edit(edit)])
}

pub(crate) fn delta(version: u64, change: Change) -> Delta {
    Delta {
        region: DIR.region_id,
        version: ManifestVersion(version),
        author: change.author,
        writer: WriterId(Uuid::from_u128(u128::from(version) + 1_000)),
        time_ms: 5_000_000 + version,
        cause: change.cause,
        procedure: change.procedure,
        by_reference: change.by_reference,
        actions: change.actions,
    }
}
