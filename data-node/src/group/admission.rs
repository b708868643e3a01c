//! Checks of a write before it is proposed: all checks that need no agreement. An invalid write
//! costs one node little and the log nothing.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{RegionId, SchemaVersion, Serial};
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::{
    MAX_KEY_BYTES, MAX_WRITE_BYTES, MAX_WRITE_ROWS, check_storable, decode_batch,
};
use tidewater_proto::v1::{Reason, WriteRequest};
use tidewater_raft_store::DiskHealth;

use super::apply::{check_writable, named_opening, producer_key, row_op, served_version};
use super::descriptor::Descriptor;
use super::entry::EntryOutcome;
use super::producers::OPENING;

#[cfg(test)]
mod tests;

/// Limits of one write.
#[derive(Debug, Clone, Copy)]
pub struct WriteLimits {
    /// Rows of one write.
    pub rows: usize,
    /// Bytes of encoded rows of one write.
    pub bytes: usize,
    /// Bytes of one row key as stored.
    pub key_bytes: usize,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self { rows: MAX_WRITE_ROWS, bytes: MAX_WRITE_BYTES, key_bytes: MAX_KEY_BYTES }
    }
}

/// Checks a write against the region that it names. Costs a zero-copy decoding and a comparison of
/// neighbouring keys.
pub fn check(
    descriptor: &Arc<Descriptor>,
    limits: &WriteLimits,
    write: &WriteRequest,
) -> Result<(), Refusal> {
    check_numbers(&[
        ("catalog_version", write.catalog_version),
        ("origin_region_id", write.origin_region_id),
        ("serial", write.serial),
    ])?;
    check_written_by_clients(descriptor)?;
    let descriptor = served(descriptor, write.schema_version)?;
    producer_key(write).map_err(EntryOutcome::into_refusal)?;
    check_opening(write)?;
    if write.rows.len() > limits.bytes {
        return Err(Refusal::new(
            Reason::MessageTooLarge,
            format!(
                "a write of {} bytes is above the limit of {}: send smaller batches",
                write.rows.len(),
                limits.bytes
            ),
        ));
    }
    if write.rows.is_empty() {
        return check_empty(write);
    }
    check_rows(descriptor, limits, write)
}

/// Checks that the rows of a table are written by clients, not by its refreshes.
pub fn check_written_by_clients(descriptor: &Descriptor) -> Result<(), Refusal> {
    check_writable(descriptor).map_err(EntryOutcome::into_refusal)
}

/// Checks that ids and versions of a call are below 2^63: no cluster assigns others, and sums with them
/// overflow.
pub fn check_numbers(numbers: &[(&str, u64)]) -> Result<(), Refusal> {
    let is_out_of_range = |(_, number): &&(&str, u64)| i64::try_from(*number).is_err();
    numbers.iter().find(is_out_of_range).map_or(Ok(()), |(name, number)| {
        let text = format!("{name} {number} is out of range: it must be below 2^63");
        Err(Refusal::new(Reason::InvalidArgument, text))
    })
}

/// Checks a write without rows, which opens a producer.
fn check_empty(write: &WriteRequest) -> Result<(), Refusal> {
    if write.row_count == 0 {
        return Ok(());
    }
    let text = format!("a write declares {} rows but contains 0", write.row_count);
    Err(Refusal::new(Reason::InvalidArgument, text))
}

/// Checks rows of a bulk load, which bypass the log and have neither a producer nor an opening.
pub fn check_put(
    descriptor: &Arc<Descriptor>,
    limits: &WriteLimits,
    rows: &WriteRequest,
) -> Result<(), Refusal> {
    check_written_by_clients(descriptor)?;
    check_current_schema(descriptor, rows.schema_version)?;
    check_rows(descriptor, limits, rows)
}

/// Requires an opening: without one the write could be applied twice, see
/// [`producers`](super::producers).
fn check_opening(write: &WriteRequest) -> Result<(), Refusal> {
    if Serial(write.serial) == OPENING || named_opening(write).is_some() {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::InvalidArgument,
        "a write must name its producer's opening: the sequence returned by the opening write",
    ))
}

/// Returns the region as a call that names this version of the schema sees it.
pub fn served(descriptor: &Arc<Descriptor>, named: u32) -> Result<&Arc<Descriptor>, Refusal> {
    served_version(descriptor, SchemaVersion(named)).map_err(EntryOutcome::into_refusal).map_err(
        |refusal| match refusal.reason {
            Reason::SchemaVersionBehind => refusal.retry_after(Duration::from_millis(100)),
            _ => refusal,
        },
    )
}

/// Checks that files, which have one schema, have the region's current one.
pub fn check_current_schema(descriptor: &Arc<Descriptor>, named: u32) -> Result<(), Refusal> {
    let served = served(descriptor, named)?;
    if Arc::ptr_eq(served, descriptor) {
        return Ok(());
    }
    let (table, have) = (&descriptor.table_name, descriptor.schema_version());
    let text =
        format!("table {table} is at schema version {have}, not {named}: refresh the catalog");
    Err(Refusal::new(Reason::SchemaVersionStale, text))
}

fn check_rows(
    descriptor: &Descriptor,
    limits: &WriteLimits,
    write: &WriteRequest,
) -> Result<(), Refusal> {
    let table = &descriptor.table_name;
    let mismatch = |detail: String| {
        Refusal::new(Reason::SchemaMismatch, format!("rows do not fit table {table}: {detail}"))
    };
    let op = row_op(descriptor, write).map_err(EntryOutcome::into_refusal)?;
    let rows = decode_batch(&write.rows, &descriptor.row_schema(op))
        .map_err(|error| mismatch(error.to_string()))?;
    let count = rows.num_rows();
    if count > limits.rows {
        return Err(Refusal::new(
            Reason::MessageTooLarge,
            format!("a write of {count} rows is above the limit of {}", limits.rows),
        ));
    }
    if count != write.row_count as usize {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            format!("a write declares {} rows but contains {count}", write.row_count),
        ));
    }
    // The decoder accepts nulls in non-nullable columns.
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(mismatch(format!("column {:?} must not be null", field.name())));
        }
    }
    check_storable(rows.schema_ref(), rows.columns())
        .map_err(|misfit| mismatch(misfit.to_string()))?;
    if count == 0 {
        return Ok(());
    }
    let keys = descriptor.key_columns(op, &rows);
    let codec = descriptor.codec();
    let key_error = |error: tidewater_common::keys::KeyError| mismatch(error.to_string());
    let longest = codec.longest_key(&keys).map_err(key_error)?;
    if longest > limits.key_bytes {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            format!(
                "a row key of {longest} bytes is above the limit of {}: keep long values in columns \
                 outside the primary key of table {table}",
                limits.key_bytes
            ),
        ));
    }
    if !codec.is_sorted(&keys).map_err(key_error)? {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            "rows must be in ascending row key order: sort each batch before it is sent",
        ));
    }
    // The rows are sorted: checking the first and the last key covers all keys.
    for row in [0, count - 1] {
        let key = codec.row_key(&keys, row).map_err(key_error)?;
        if !descriptor.range.contains(&key) {
            return Err(outside(descriptor.region_id));
        }
    }
    Ok(())
}

fn outside(region: RegionId) -> Refusal {
    Refusal::new(
        Reason::KeyOutsideRegion,
        format!("rows are outside region {region}: refresh the catalog and route them again"),
    )
}

/// Checks that the node's disk accepts writes.
pub fn check_disk(health: &DiskHealth) -> Result<(), Refusal> {
    match health {
        DiskHealth::Ok => Ok(()),
        DiskHealth::Full => Err(Refusal::new(
            Reason::DiskFull,
            "the leader's disk is full: it accepts no writes until there is room; free space below \
             its --data-dir, or give it a larger disk",
        )
        .retry_after(Duration::from_secs(1))),
        DiskHealth::Failed(detail) => Err(Refusal::new(
            Reason::ShuttingDown,
            format!("this node's disk has failed, the node is shutting down: {detail}"),
        )),
    }
}
