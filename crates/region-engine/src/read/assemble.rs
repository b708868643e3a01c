//! Assembles one batch from the segments that a merge has emitted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt8Array, UInt64Array};
use arrow::compute::{concat, interleave};

use super::merge::chunk::Chunk;
use crate::EngineError;
use crate::row_versions::{Numbers, Ops, RowVersions, Stamps};

/// Rows `start .. end` of a pinned chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) chunk: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Mean length of segments from which whole segments are copied, not single rows.
const LONG: usize = 24;

/// Copies the segments into one batch; `None` without segments. A single segment is not copied at
/// all.
pub(crate) fn assemble(
    chunks: &[Arc<Chunk>],
    segments: &[Segment],
) -> Result<Option<RowVersions>, EngineError> {
    let Some(first) = segments.first() else { return Ok(None) };
    let lead = &chunks[first.chunk].rows;
    if let [segment] = segments {
        return Ok(Some(lead.slice(segment.start, segment.end - segment.start)));
    }
    let rows = segments.iter().map(|segment| segment.end - segment.start).sum();
    let arrays = if rows / segments.len() >= LONG {
        concat_columns(chunks, segments, lead.arrays().len())?
    } else {
        interleave_columns(chunks, segments, lead.arrays().len(), rows)?
    };
    let stamps = Stamps {
        sequences: numbers(chunks, segments, rows, |stamps| &stamps.sequences),
        epochs: numbers(chunks, segments, rows, |stamps| &stamps.epochs),
        ops: ops(chunks, segments, rows),
    };
    Ok(Some(RowVersions::new(lead.ids().clone(), arrays, rows, stamps)))
}

fn concat_columns(
    chunks: &[Arc<Chunk>],
    segments: &[Segment],
    columns: usize,
) -> Result<Vec<ArrayRef>, EngineError> {
    let mut arrays = Vec::with_capacity(columns);
    for column in 0..columns {
        let slices: Vec<ArrayRef> = segments
            .iter()
            .map(|s| chunks[s.chunk].rows.arrays()[column].slice(s.start, s.end - s.start))
            .collect();
        let slices: Vec<&dyn Array> = slices.iter().map(AsRef::as_ref).collect();
        arrays.push(concat(&slices)?);
    }
    Ok(arrays)
}

fn interleave_columns(
    chunks: &[Arc<Chunk>],
    segments: &[Segment],
    columns: usize,
    rows: usize,
) -> Result<Vec<ArrayRef>, EngineError> {
    let mut indices = Vec::with_capacity(rows);
    for segment in segments {
        indices.extend((segment.start..segment.end).map(|row| (segment.chunk, row)));
    }
    let mut arrays = Vec::with_capacity(columns);
    for column in 0..columns {
        let sources: Vec<&dyn Array> =
            chunks.iter().map(|chunk| chunk.rows.arrays()[column].as_ref()).collect();
        arrays.push(interleave(&sources, &indices)?);
    }
    Ok(arrays)
}

fn numbers(
    chunks: &[Arc<Chunk>],
    segments: &[Segment],
    rows: usize,
    of: impl Fn(&Stamps) -> &Numbers,
) -> Numbers {
    let mut common = None;
    let same = segments.iter().all(|segment| match of(chunks[segment.chunk].rows.stamps()) {
        Numbers::All(number) => *common.get_or_insert(*number) == *number,
        Numbers::Each(_) => false,
    });
    if let (true, Some(number)) = (same, common) {
        return Numbers::All(number);
    }
    let mut values: Vec<u64> = Vec::with_capacity(rows);
    for segment in segments {
        match of(chunks[segment.chunk].rows.stamps()) {
            Numbers::All(number) => {
                values.resize(values.len() + segment.end - segment.start, *number);
            }
            Numbers::Each(numbers) => {
                values.extend_from_slice(&numbers.values()[segment.start..segment.end]);
            }
        }
    }
    Numbers::Each(UInt64Array::from(values))
}

fn ops(chunks: &[Arc<Chunk>], segments: &[Segment], rows: usize) -> Ops {
    let mut common = None;
    let same = segments.iter().all(|segment| match chunks[segment.chunk].rows.stamps().ops {
        Ops::All(op) => *common.get_or_insert(op) == op,
        Ops::Each(_) => false,
    });
    if let (true, Some(op)) = (same, common) {
        return Ops::All(op);
    }
    let mut codes: Vec<u8> = Vec::with_capacity(rows);
    for segment in segments {
        match &chunks[segment.chunk].rows.stamps().ops {
            Ops::All(op) => codes.resize(codes.len() + segment.end - segment.start, op.code()),
            Ops::Each(each) => codes.extend_from_slice(&each.values()[segment.start..segment.end]),
        }
    }
    Ops::Each(UInt8Array::from(codes))
}
