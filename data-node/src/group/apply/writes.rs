//! `writes`: the writes of several clients, each judged on its own, in order.
//!
//! The leader has checked each write before proposing it. This module checks again what can have
//! changed since, and repeats the cheap checks of the rows (first and last key, storable values):
//! no replica ever holds a row outside its region or one that cannot be flushed.

mod decoded_rows;
mod replaced;

use std::io;
use std::sync::Arc;

use tidewater_common::ids::{
    Epoch, LogIndex, ProducerId, RegionId, SchemaVersion, Sequence, Serial,
};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1::{Reason, RegionWrites, RowOp, WriteRequest};

pub(super) use self::decoded_rows::DecodedRows;
use self::decoded_rows::mismatch;
use super::{Applied, RowSink, SinkError, WritePoint};
use crate::group::admits::{Operation, Server};
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
    let epoch = state.epoch;
    let mut outcomes = Vec::with_capacity(entry.writes.len());
    for (ordinal, write) in (0u32..).zip(entry.writes) {
        let id = RegionId(write.region_id);
        let attempt = Attempt { at: (index, ordinal), epoch, write: &write, eviction };
        let outcome =
            match state.regions.get_mut(&id).map(|region| (region.admit(Operation::Write), region))
            {
                None => state.not_served(id),
                Some((Err(refused), _)) => refused,
                Some((Ok(Server::Region), region)) => apply_one(region, &attempt, sink)?,
                Some((Ok(Server::Children), _)) => replaced::apply(state, id, &attempt, sink)?,
            };
        outcomes.push(outcome);
    }
    Ok(Applied { outcomes, effects: Vec::new() })
}

/// A write at its position in the log.
struct Attempt<'a> {
    at: (LogIndex, u32),
    /// Epoch of the group.
    epoch: Epoch,
    write: &'a WriteRequest,
    eviction: Eviction,
}

impl Attempt<'_> {
    fn serial(&self) -> Serial {
        Serial(self.write.serial)
    }
}

fn apply_one(
    region: &mut RegionState,
    attempt: &Attempt<'_>,
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    let write = attempt.write;
    if let Err(refused) = check_writable(&region.descriptor) {
        return Ok(refused);
    }
    if let Err(refused) = served_version(&region.descriptor, SchemaVersion(write.schema_version)) {
        return Ok(earlier_outcome(region, write).unwrap_or(refused));
    }
    let key = match producer_key(write) {
        Ok(key) => key,
        Err(refused) => return Ok(refused),
    };
    let decision = region.producers.judge(&key, named_opening(write), attempt.serial());
    if let Some(refused) = refused_by(&region.descriptor, &decision, key, attempt.serial()) {
        return Ok(refused);
    }
    match DecodedRows::decode(&region.descriptor, write) {
        Ok(rows) => carry_out(region, attempt, (key, decision), rows, sink),
        Err(refused) => Ok(refused),
    }
}

/// Checks that a table is written by clients.
pub(crate) fn check_writable(descriptor: &Descriptor) -> Result<(), EntryOutcome> {
    if !descriptor.options.refreshable {
        return Ok(());
    }
    let table = &descriptor.table_name;
    let text = format!(
        "table {table} mirrors a source: change the source, then `tidewater refresh start {table}`"
    );
    Err(EntryOutcome::refused(Reason::TableRefreshable, text))
}

/// Checks that a table was not dropped while holds keep its rows.
pub(crate) fn check_not_dropped(descriptor: &Descriptor) -> Result<(), EntryOutcome> {
    if !descriptor.options.dropped {
        return Ok(());
    }
    let kept_as = &descriptor.table_name;
    let text = format!(
        "the table was dropped: its rows can be read as {kept_as} at held epochs until its last hold ends"
    );
    Err(EntryOutcome::refused(Reason::TableNotFound, text))
}

/// Returns the refusal of a write that is not its producer's next one, and no repeat; and that of a next one to a dropped
/// table.
fn refused_by(
    descriptor: &Descriptor,
    decision: &WriteDecision,
    key: ProducerKey,
    serial: Serial,
) -> Option<EntryOutcome> {
    match decision {
        WriteDecision::Apply => check_not_dropped(descriptor).err(),
        WriteDecision::Repeat { .. } => None,
        WriteDecision::Forgotten => Some(EntryOutcome::refused(
            Reason::ProducerForgotten,
            format!("producer {} is not known to the region: open a new one", key.producer),
        )),
        WriteDecision::OutOfOrder { last } => Some(EntryOutcome::refused(
            Reason::SerialOutOfOrder,
            format!("serial {serial} of producer {} does not follow {last}", key.producer),
        )),
    }
}

/// Carries out the decision about a write in a region, with the rows that belong to the region.
fn carry_out(
    region: &mut RegionState,
    attempt: &Attempt<'_>,
    (key, decision): (ProducerKey, WriteDecision),
    rows: Option<DecodedRows>,
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    match decision {
        WriteDecision::Apply => first_attempt(region, attempt, key, rows, sink),
        WriteDecision::Repeat { outcome, covered } => {
            repeat(region, attempt, key, rows, (outcome, covered), sink)
        }
        refused => {
            let refused = refused_by(&region.descriptor, &refused, key, attempt.serial());
            Ok(refused.unwrap_or(EntryOutcome::DONE))
        }
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
    attempt: &Attempt<'_>,
    key: ProducerKey,
    rows: Option<DecodedRows>,
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    let (outcome, covered) = match rows {
        None => match sequence_at(region, attempt.at) {
            Ok(sequence) => (FirstOutcome { sequence, rows: 0 }, Vec::new()),
            Err(refused) => return Ok(refused),
        },
        Some(rows) => {
            let covered = vec![rows.covered.clone()];
            match put(region, attempt, rows, sink)? {
                Ok(outcome) => (outcome, covered),
                Err(refused) => return Ok(refused),
            }
        }
    };
    let (serial, at) = (attempt.serial(), attempt.at);
    region.producers.record(key, serial, outcome, covered, at, attempt.eviction);
    Ok(done_outcome(outcome, false))
}

/// Skips rows that the first attempt covered. After a merge of regions a repeat may hold further
/// rows: those are applied, unless the table was dropped.
fn repeat(
    region: &mut RegionState,
    attempt: &Attempt<'_>,
    key: ProducerKey,
    rows: Option<DecodedRows>,
    (outcome, mut covered): (FirstOutcome, Vec<KeyRange>),
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    let left = match rows.map(|rows| rows.outside(&region.descriptor, &covered)).transpose() {
        Ok(left) => left.flatten(),
        Err(refused) => return Ok(refused),
    };
    let (serial, at) = (attempt.serial(), attempt.at);
    let Some(left) = left else {
        region.producers.touch(&key, at);
        return Ok(done_outcome(outcome, true));
    };
    if let Err(refused) = check_not_dropped(&region.descriptor) {
        return Ok(refused);
    }
    covered.push(left.covered.clone());
    let now = match put(region, attempt, left, sink)? {
        Ok(now) => now,
        Err(refused) => return Ok(refused),
    };
    let whole =
        FirstOutcome { sequence: now.sequence, rows: outcome.rows.saturating_add(now.rows) };
    // The producer is in the table already: nothing is evicted.
    region.producers.record(key, serial, whole, covered, at, Eviction::CURRENT);
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
    attempt: &Attempt<'_>,
    rows: DecodedRows,
    sink: &dyn RowSink,
) -> io::Result<Result<FirstOutcome, EntryOutcome>> {
    let point = RowsPoint { at: attempt.at, epoch: attempt.epoch };
    put_rows(region, point, attempt.write, rows, sink)
}

/// Position of rows in the log, and the epoch of the group.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsPoint {
    pub(super) at: (LogIndex, u32),
    pub(super) epoch: Epoch,
}

/// Decodes the rows of a write, as rows of the region's schema; `None` if it has none.
pub(super) fn decode_rows(
    descriptor: &Arc<Descriptor>,
    write: &WriteRequest,
) -> Result<Option<DecodedRows>, EntryOutcome> {
    DecodedRows::decode(descriptor, write)
}

/// Puts decoded rows of a write into a region.
pub(super) fn put_rows(
    region: &mut RegionState,
    RowsPoint { at, epoch }: RowsPoint,
    write: &WriteRequest,
    rows: DecodedRows,
    sink: &dyn RowSink,
) -> io::Result<Result<FirstOutcome, EntryOutcome>> {
    let sequence = match sequence_at(region, at) {
        Ok(sequence) => sequence,
        Err(refused) => return Ok(Err(refused)),
    };
    let count = u32::try_from(rows.batch.num_rows()).unwrap_or(u32::MAX);
    let point = WritePoint { sequence, epoch };
    match sink.rows(region.descriptor.region_id, point, rows.op, rows.batch) {
        Ok(()) => {}
        Err(SinkError::BadRows(detail)) => return Ok(Err(mismatch(&region.descriptor, detail))),
        Err(SinkError::Fault(error)) => return Err(error),
    }
    region.record_write(point, &write.rows);
    Ok(Ok(FirstOutcome { sequence, rows: count }))
}

fn done_outcome(outcome: FirstOutcome, repeated: bool) -> EntryOutcome {
    EntryOutcome::Done { sequence: outcome.sequence, rows: outcome.rows, repeated }
}
