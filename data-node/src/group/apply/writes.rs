//! `writes`: the writes of several clients, each judged on its own, in order.
//!
//! The leader has checked each write before proposing it. This module checks again what can have
//! changed since, and repeats the cheap checks of the rows (first and last key, storable values):
//! no replica ever holds a row outside its region or one that cannot be flushed.

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use tidewater_common::ids::{LogIndex, ProducerId, RegionId, SchemaVersion, Sequence, Serial};
use tidewater_common::keys::KeyRange;
use tidewater_common::rows::{check_storable, convert_batch, decode_batch};
use tidewater_proto::v1::{Reason, RegionWrites, RowOp, WriteRequest};

use super::{Applied, RowSink, SinkError};
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::producers::{Eviction, FirstOutcome, OPENING, ProducerKey, WriteDecision};
use crate::group::state::{GroupState, RegionState};

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: RegionWrites,
    sink: &dyn RowSink,
) -> io::Result<Applied> {
    // Decoding refuses entries with another rule.
    let eviction = Eviction::from_wire(entry.eviction).unwrap_or(Eviction::CURRENT);
    let mut outcomes = Vec::with_capacity(entry.writes.len());
    for (ordinal, write) in (0u32..).zip(entry.writes) {
        let id = RegionId(write.region_id);
        let outcome = match state.regions.get_mut(&id) {
            Some(region) => apply_one(region, (index, ordinal), &write, eviction, sink)?,
            None => EntryOutcome::refused(
                Reason::RegionNotFound,
                format!("region {id} is no longer served by this group"),
            ),
        };
        outcomes.push(outcome);
    }
    Ok(Applied { outcomes, effects: Vec::new() })
}

fn apply_one(
    region: &mut RegionState,
    at: (LogIndex, u32),
    write: &WriteRequest,
    eviction: Eviction,
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    if let Err(refused) = served_version(&region.descriptor, SchemaVersion(write.schema_version)) {
        return Ok(earlier_outcome(region, write).unwrap_or(refused));
    }
    let key = match producer_key(write) {
        Ok(key) => key,
        Err(refused) => return Ok(refused),
    };
    let serial = Serial(write.serial);
    match region.producers.judge(&key, named_opening(write), serial) {
        WriteDecision::Apply => first_attempt(region, at, key, write, eviction, sink),
        WriteDecision::Repeat { outcome, covered } => {
            repeat(region, at, key, write, (outcome, covered), sink)
        }
        WriteDecision::Forgotten => Ok(EntryOutcome::refused(
            Reason::ProducerForgotten,
            format!("producer {} is not known to the region: open a new one", key.producer),
        )),
        WriteDecision::OutOfOrder { last } => Ok(EntryOutcome::refused(
            Reason::SerialOutOfOrder,
            format!("serial {serial} of producer {} does not follow {last}", key.producer),
        )),
    }
}

/// Outcome of a write with a schema version that is no longer served, and that took effect before the region was
/// altered. Its client retries because it lacks the reply: a refusal would wrongly report that nothing was
/// done.
///
/// The rows cannot be compared with the applied ones, which have the previous schema. The write
/// must therefore have been addressed to this region originally and have the same number of rows:
/// then this region applied all of it. It does not count as use of its producer: replicas of a
/// release that refuses such repeats would forget another producer.
pub(crate) fn earlier_outcome(region: &RegionState, write: &WriteRequest) -> Option<EntryOutcome> {
    if SchemaVersion(write.schema_version) >= region.descriptor.schema_version() {
        return None;
    }
    let key = producer_key(write).ok().filter(|key| key.origin == region.descriptor.region_id)?;
    let opening = named_opening(write);
    let serial = Serial(write.serial);
    if opening.is_none() && serial != OPENING {
        return None;
    }
    match region.producers.judge(&key, opening, serial) {
        WriteDecision::Repeat { outcome, .. } if outcome.rows == write.row_count => {
            Some(done_outcome(outcome, true))
        }
        _ => None,
    }
}

/// Returns the region as a call that names this version of the schema sees it.
pub(crate) fn served_version(
    descriptor: &Arc<Descriptor>,
    named: SchemaVersion,
) -> Result<&Arc<Descriptor>, EntryOutcome> {
    let have = descriptor.schema_version();
    let table = &descriptor.table_name;
    descriptor.at_version(named).ok_or_else(|| {
        if named < have {
            let text = format!(
                "table {table} is at schema version {have}, not {named}: refresh the catalog"
            );
            return EntryOutcome::refused(Reason::SchemaVersionStale, text);
        }
        let text = format!(
            "this replica has only reached schema version {have} of table {table}, not {named}"
        );
        EntryOutcome::refused(Reason::SchemaVersionBehind, text)
    })
}

/// Returns the producer key of a write; opening writes carry no rows.
pub(crate) fn producer_key(write: &WriteRequest) -> Result<ProducerKey, EntryOutcome> {
    let invalid = |message: &str| EntryOutcome::refused(Reason::InvalidArgument, message);
    let producer = ProducerId::from_slice(&write.producer_id)
        .ok_or_else(|| invalid("a producer id has 16 bytes"))?;
    match write.serial {
        0 => return Err(invalid("serials count from 1")),
        1 if !write.rows.is_empty() => {
            return Err(invalid("serial 1 opens a producer and carries no rows"));
        }
        _ => {}
    }
    let origin = match write.origin_region_id {
        0 => write.region_id,
        origin => origin,
    };
    Ok(ProducerKey { producer, origin: RegionId(origin) })
}

/// The producer opening that a write names. `None` for an opening write and for log entries of
/// older releases; [`admission`](crate::group::admission) refuses new writes without one.
pub(crate) fn named_opening(write: &WriteRequest) -> Option<Sequence> {
    (Serial(write.serial) != OPENING && write.opening != 0).then_some(Sequence(write.opening))
}

/// The write's row operation, if the table supports it.
pub(crate) fn row_op(descriptor: &Descriptor, write: &WriteRequest) -> Result<RowOp, EntryOutcome> {
    let op = RowOp::try_from(write.op).map_err(|_| {
        EntryOutcome::refused(Reason::Unsupported, format!("unknown row operation {}", write.op))
    })?;
    if op == RowOp::Delete && !descriptor.options.write_mode.has_deletes() {
        return Err(EntryOutcome::refused(
            Reason::InvalidArgument,
            format!("table {} is append-only: its rows cannot be deleted", descriptor.table_name),
        ));
    }
    Ok(op)
}

fn first_attempt(
    region: &mut RegionState,
    at: (LogIndex, u32),
    key: ProducerKey,
    write: &WriteRequest,
    eviction: Eviction,
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    let rows = match DecodedRows::decode(&region.descriptor, write) {
        Ok(rows) => rows,
        Err(refused) => return Ok(refused),
    };
    let (outcome, covered) = match rows {
        None => match sequence_at(region, at) {
            Ok(sequence) => (FirstOutcome { sequence, rows: 0 }, Vec::new()),
            Err(refused) => return Ok(refused),
        },
        Some(rows) => {
            let covered = vec![rows.covered.clone()];
            match put(region, at, rows, write, sink)? {
                Ok(outcome) => (outcome, covered),
                Err(refused) => return Ok(refused),
            }
        }
    };
    region.producers.record(key, Serial(write.serial), outcome, covered, at, eviction);
    Ok(done_outcome(outcome, false))
}

/// Skips rows that the first attempt covered. After a merge of regions a repeat may hold further
/// rows: those are applied.
fn repeat(
    region: &mut RegionState,
    at: (LogIndex, u32),
    key: ProducerKey,
    write: &WriteRequest,
    (outcome, mut covered): (FirstOutcome, Vec<KeyRange>),
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    let rows = match DecodedRows::decode(&region.descriptor, write) {
        Ok(rows) => rows,
        Err(refused) => return Ok(refused),
    };
    let left = match rows.map(|rows| rows.outside(&region.descriptor, &covered)).transpose() {
        Ok(left) => left.flatten(),
        Err(refused) => return Ok(refused),
    };
    let Some(left) = left else {
        region.producers.touch(&key, at);
        return Ok(done_outcome(outcome, true));
    };
    covered.push(left.covered.clone());
    let now = match put(region, at, left, write, sink)? {
        Ok(now) => now,
        Err(refused) => return Ok(refused),
    };
    let whole =
        FirstOutcome { sequence: now.sequence, rows: outcome.rows.saturating_add(now.rows) };
    // The producer is in the table already: nothing is evicted.
    region.producers.record(key, Serial(write.serial), whole, covered, at, Eviction::CURRENT);
    Ok(done_outcome(whole, true))
}

/// Returns the sequence of a write. A region whose base leaves none refuses all writes, on every
/// replica: an error would stop the group's Raft on all of them, at every start again.
fn sequence_at(
    region: &RegionState,
    (index, ordinal): (LogIndex, u32),
) -> Result<Sequence, EntryOutcome> {
    Sequence::at(region.base, index, ordinal).ok_or_else(|| {
        EntryOutcome::refused(
            Reason::InvalidArgument,
            format!(
                "region {} has no sequence left for write {ordinal} of log index {index} above its \
                 base {}",
                region.descriptor.region_id, region.base
            ),
        )
    })
}

fn put(
    region: &mut RegionState,
    at: (LogIndex, u32),
    rows: DecodedRows,
    write: &WriteRequest,
    sink: &dyn RowSink,
) -> io::Result<Result<FirstOutcome, EntryOutcome>> {
    let sequence = match sequence_at(region, at) {
        Ok(sequence) => sequence,
        Err(refused) => return Ok(Err(refused)),
    };
    let count = u32::try_from(rows.batch.num_rows()).unwrap_or(u32::MAX);
    match sink.rows(region.descriptor.region_id, sequence, rows.op, rows.batch) {
        Ok(()) => {}
        Err(SinkError::BadRows(detail)) => return Ok(Err(mismatch(&region.descriptor, detail))),
        Err(SinkError::Fault(error)) => return Err(error),
    }
    region.record_write(sequence, &write.rows);
    Ok(Ok(FirstOutcome { sequence, rows: count }))
}

fn done_outcome(outcome: FirstOutcome, repeated: bool) -> EntryOutcome {
    EntryOutcome::Done { sequence: outcome.sequence, rows: outcome.rows, repeated }
}

/// Decoded rows of one write, and the key range from the first to the last row.
struct DecodedRows {
    op: RowOp,
    batch: RecordBatch,
    covered: KeyRange,
}

impl DecodedRows {
    /// Decodes the rows of a write, as rows of the region's schema; `None` if it has none.
    fn decode(
        descriptor: &Arc<Descriptor>,
        write: &WriteRequest,
    ) -> Result<Option<Self>, EntryOutcome> {
        if write.rows.is_empty() {
            return Ok(None);
        }
        let op = row_op(descriptor, write)?;
        let written = served_version(descriptor, SchemaVersion(write.schema_version))?;
        let batch = decode_batch(&write.rows, &written.row_schema(op))
            .map_err(|error| mismatch(descriptor, error))?;
        let batch = match op {
            RowOp::Put if !Arc::ptr_eq(written, descriptor) => {
                convert_batch(&batch, &written.schema, &descriptor.schema)
                    .map_err(|error| mismatch(descriptor, error))?
            }
            // The key of a table is never altered.
            _ => batch,
        };
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        // Checked before the region applies the rows: whether the region examines them depends on the
        // files that this replica has loaded.
        check_storable(batch.schema_ref(), batch.columns())
            .map_err(|misfit| mismatch(descriptor, misfit))?;
        let keys = descriptor.key_columns(op, &batch);
        let codec = descriptor.codec();
        let first = codec.row_key(&keys, 0).map_err(|error| mismatch(descriptor, error))?;
        let mut last = codec
            .row_key(&keys, batch.num_rows() - 1)
            .map_err(|error| mismatch(descriptor, error))?;
        if !descriptor.range.contains(&first) || !descriptor.range.contains(&last) {
            return Err(EntryOutcome::refused(
                Reason::KeyOutsideRegion,
                format!("rows are outside region {}: refresh the catalog", descriptor.region_id),
            ));
        }
        // The smallest key greater than the last one.
        last.push(0);
        Ok(Some(Self { op, batch, covered: KeyRange { start: first, end: Some(last) } }))
    }

    /// Returns the rows whose keys are in none of the `covered` ranges; `None` if there are none.
    fn outside(
        self,
        descriptor: &Descriptor,
        covered: &[KeyRange],
    ) -> Result<Option<Self>, EntryOutcome> {
        if covered.iter().any(|range| encloses(range, &self.covered)) {
            return Ok(None);
        }
        let keys = descriptor.key_columns(self.op, &self.batch);
        let keys =
            descriptor.codec().row_keys(&keys).map_err(|error| mismatch(descriptor, error))?;
        let keep: Vec<bool> =
            keys.iter().map(|key| !covered.iter().any(|range| range.contains(key))).collect();
        if !keep.contains(&true) {
            return Ok(None);
        }
        let batch = filter_record_batch(&self.batch, &keep.into())
            .map_err(|error| mismatch(descriptor, error))?;
        Ok(Some(Self { batch, ..self }))
    }
}

fn mismatch(descriptor: &Descriptor, error: impl std::fmt::Display) -> EntryOutcome {
    EntryOutcome::refused(
        Reason::SchemaMismatch,
        format!("rows do not fit table {}: {error}", descriptor.table_name),
    )
}

fn encloses(outer: &KeyRange, inner: &KeyRange) -> bool {
    outer.start <= inner.start
        && match (&outer.end, &inner.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => inner <= outer,
        }
}
