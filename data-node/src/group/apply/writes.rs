//! `writes`: the writes of several clients, each judged for itself, in their order.
//!
//! The leader has checked each before it was proposed; what can have changed since then is checked
//! again here, and what a client could have got wrong in the rows is checked again where it is
//! cheap (first and last key, what files hold), so that no replica ever holds a row outside its region
//! or one that cannot be flushed.

use std::io;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use tidewater_common::ids::{LogIndex, ProducerId, RegionId, SchemaVersion, Sequence, Serial};
use tidewater_common::keys::KeyRange;
use tidewater_common::rows::{check_storable, decode_batch};
use tidewater_proto::v1::{Reason, RowOp, WriteRequest};

use super::{Applied, RowSink, SinkError};
use crate::group::descriptor::Descriptor;
use crate::group::entry::Outcome;
use crate::group::producers::{FirstOutcome, OPENING, ProducerKey, Verdict};
use crate::group::state::{GroupState, RegionState};

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    writes: Vec<WriteRequest>,
    sink: &dyn RowSink,
) -> io::Result<Applied> {
    let mut outcomes = Vec::with_capacity(writes.len());
    for (ordinal, write) in (0u32..).zip(writes) {
        let id = RegionId(write.region_id);
        let outcome = match state.regions.get_mut(&id) {
            Some(region) => apply_one(region, (index, ordinal), &write, sink)?,
            None => Outcome::refused(
                Reason::RegionNotFound,
                format!("region {id} is not served by this group any more"),
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
    sink: &dyn RowSink,
) -> io::Result<Outcome> {
    if let Err(refused) =
        check_schema_version(&region.descriptor, SchemaVersion(write.schema_version))
    {
        return Ok(done_before(region, write).unwrap_or(refused));
    }
    let key = match producer_key(write) {
        Ok(key) => key,
        Err(refused) => return Ok(refused),
    };
    let serial = Serial(write.serial);
    match region.producers.judge(&key, named_opening(write), serial) {
        Verdict::Apply => first_attempt(region, at, key, write, sink),
        Verdict::Repeat { outcome, covered } => {
            repeat(region, at, key, write, (outcome, covered), sink)
        }
        Verdict::Forgotten => Ok(Outcome::refused(
            Reason::ProducerForgotten,
            format!("producer {} is not remembered here: open a new one", key.producer),
        )),
        Verdict::OutOfOrder { last } => Ok(Outcome::refused(
            Reason::SerialOutOfOrder,
            format!("serial {serial} of producer {} does not follow {last}", key.producer),
        )),
    }
}

/// What a write under an older schema was answered, if it took effect before the region was altered:
/// whoever asks again did not get that answer, and must not be told that nothing was done.
///
/// Its rows cannot be compared with those that were applied, for they are of the schema before. So
/// it must have been addressed to this very region at first, and be as long: then all of it was
/// applied here. It does not count as use of its producer: a release that refuses such repeats would
/// forget another.
pub(crate) fn done_before(region: &RegionState, write: &WriteRequest) -> Option<Outcome> {
    if SchemaVersion(write.schema_version) >= region.descriptor.schema_version() {
        return None;
    }
    let key = producer_key(write).ok().filter(|key| key.origin == region.descriptor.region_id)?;
    let (opening, serial) = (named_opening(write), Serial(write.serial));
    if opening.is_none() && serial != OPENING {
        return None;
    }
    match region.producers.judge(&key, opening, serial) {
        Verdict::Repeat { outcome, .. } if outcome.rows == write.row_count => {
            Some(done(outcome, true))
        }
        _ => None,
    }
}

/// Whether a call that names `named` fits the region's schema.
pub(crate) fn check_schema_version(
    descriptor: &Descriptor,
    named: SchemaVersion,
) -> Result<(), Outcome> {
    let have = descriptor.schema_version();
    let table = &descriptor.table_name;
    match named.cmp(&have) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(Outcome::refused(
            Reason::SchemaVersionStale,
            format!("table {table} is at schema version {have}, not {named}: refresh the catalog"),
        )),
        std::cmp::Ordering::Greater => Err(Outcome::refused(
            Reason::SchemaVersionBehind,
            format!("table {table} has only reached schema version {have} here, not {named}"),
        )),
    }
}

/// The write stream that a write belongs to; opening writes carry no rows.
pub(crate) fn producer_key(write: &WriteRequest) -> Result<ProducerKey, Outcome> {
    let invalid = |message: &str| Outcome::refused(Reason::InvalidArgument, message);
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

/// The opening that a write goes with. None in an opening write, nor in writes that older releases
/// have left in the log; [`admission`](crate::group::admission) lets no new write pass without.
pub(crate) fn named_opening(write: &WriteRequest) -> Option<Sequence> {
    (Serial(write.serial) != OPENING && write.opening != 0).then_some(Sequence(write.opening))
}

/// What the rows of a write do, as far as the table has it.
pub(crate) fn row_op(descriptor: &Descriptor, write: &WriteRequest) -> Result<RowOp, Outcome> {
    let op = RowOp::try_from(write.op).map_err(|_| {
        Outcome::refused(Reason::Unsupported, format!("unknown row operation {}", write.op))
    })?;
    if op == RowOp::Delete && !descriptor.options.write_mode.has_deletes() {
        return Err(Outcome::refused(
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
    sink: &dyn RowSink,
) -> io::Result<Outcome> {
    let rows = match Rows::decode(&region.descriptor, write) {
        Ok(rows) => rows,
        Err(refused) => return Ok(refused),
    };
    let (outcome, covered) = match rows {
        None => (FirstOutcome { sequence: sequence_at(region, at)?, rows: 0 }, Vec::new()),
        Some(rows) => {
            let covered = vec![rows.covered.clone()];
            match put(region, at, rows, write, sink)? {
                Ok(outcome) => (outcome, covered),
                Err(refused) => return Ok(refused),
            }
        }
    };
    region.producers.record(key, Serial(write.serial), outcome, covered, at);
    Ok(done(outcome, false))
}

/// Rows that the first attempt covered are skipped. After a merge of regions a repeat may hold
/// others: those are applied.
fn repeat(
    region: &mut RegionState,
    at: (LogIndex, u32),
    key: ProducerKey,
    write: &WriteRequest,
    (outcome, mut covered): (FirstOutcome, Vec<KeyRange>),
    sink: &dyn RowSink,
) -> io::Result<Outcome> {
    let rows = match Rows::decode(&region.descriptor, write) {
        Ok(rows) => rows,
        Err(refused) => return Ok(refused),
    };
    let left = match rows.map(|rows| rows.outside(&region.descriptor, &covered)).transpose() {
        Ok(left) => left.flatten(),
        Err(refused) => return Ok(refused),
    };
    let Some(left) = left else {
        region.producers.touch(&key, at);
        return Ok(done(outcome, true));
    };
    covered.push(left.covered.clone());
    let now = match put(region, at, left, write, sink)? {
        Ok(now) => now,
        Err(refused) => return Ok(refused),
    };
    let whole =
        FirstOutcome { sequence: now.sequence, rows: outcome.rows.saturating_add(now.rows) };
    region.producers.record(key, Serial(write.serial), whole, covered, at);
    Ok(done(whole, true))
}

fn sequence_at(region: &RegionState, (index, ordinal): (LogIndex, u32)) -> io::Result<Sequence> {
    Sequence::at(region.base, index, ordinal).ok_or_else(|| {
        io::Error::other(format!(
            "region {}: no sequence for write {ordinal} of log index {index} above base {}",
            region.descriptor.region_id, region.base
        ))
    })
}

fn put(
    region: &mut RegionState,
    at: (LogIndex, u32),
    rows: Rows,
    write: &WriteRequest,
    sink: &dyn RowSink,
) -> io::Result<Result<FirstOutcome, Outcome>> {
    let sequence = sequence_at(region, at)?;
    let count = u32::try_from(rows.batch.num_rows()).unwrap_or(u32::MAX);
    match sink.rows(region.descriptor.region_id, sequence, rows.op, rows.batch) {
        Ok(()) => {}
        Err(SinkError::BadRows(detail)) => return Ok(Err(mismatch(&region.descriptor, detail))),
        Err(SinkError::Fault(error)) => return Err(error),
    }
    region.note_write(sequence, &write.rows);
    Ok(Ok(FirstOutcome { sequence, rows: count }))
}

fn done(outcome: FirstOutcome, repeated: bool) -> Outcome {
    Outcome::Done { sequence: outcome.sequence, rows: outcome.rows, repeated }
}

/// Decoded rows of one write, and the row keys from the first to the last.
struct Rows {
    op: RowOp,
    batch: RecordBatch,
    covered: KeyRange,
}

impl Rows {
    /// The rows of a write; `None` when it has none.
    fn decode(descriptor: &Descriptor, write: &WriteRequest) -> Result<Option<Self>, Outcome> {
        if write.rows.is_empty() {
            return Ok(None);
        }
        let op = row_op(descriptor, write)?;
        let batch = decode_batch(&write.rows, &descriptor.row_schema(op))
            .map_err(|error| mismatch(descriptor, error))?;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        // Here and not only in the region: whether that looks at rows at all depends on what this
        // replica knows of its files.
        check_storable(batch.schema_ref(), batch.columns())
            .map_err(|misfit| mismatch(descriptor, misfit))?;
        let keys = descriptor.key_columns(op, &batch);
        let codec = descriptor.codec();
        let first = codec.row_key(&keys, 0).map_err(|error| mismatch(descriptor, error))?;
        let mut last = codec
            .row_key(&keys, batch.num_rows() - 1)
            .map_err(|error| mismatch(descriptor, error))?;
        if !descriptor.range.contains(&first) || !descriptor.range.contains(&last) {
            return Err(Outcome::refused(
                Reason::KeyOutsideRegion,
                format!("rows lie outside region {}: refresh the catalog", descriptor.region_id),
            ));
        }
        // The first key after the last one.
        last.push(0);
        Ok(Some(Self { op, batch, covered: KeyRange { start: first, end: Some(last) } }))
    }

    /// The rows whose keys are in none of `covered`; `None` when there are none.
    fn outside(
        self,
        descriptor: &Descriptor,
        covered: &[KeyRange],
    ) -> Result<Option<Self>, Outcome> {
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

fn mismatch(descriptor: &Descriptor, error: impl std::fmt::Display) -> Outcome {
    Outcome::refused(
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
