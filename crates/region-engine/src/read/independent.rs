//! Partition of a read's sources into parts that share no key (pure). Where rows may be returned in
//! any order, parts are read one after the other, and only sources of the same part are merged.
//!
//! Sources whose key ranges do not overlap share no key. Where the time column is part of the key,
//! neither do sources whose time ranges do not overlap: the files of two time windows may span the
//! same devices, but no key. In an append-only table no row version replaces another, so that every
//! source is a part.

use tidewater_common::schema::{TableOptions, TableSchema, WriteMode};

use super::groups::overlapping;
use crate::file_meta::TimeRange;

/// Keys and times of the rows of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent<'a> {
    /// Least and greatest row key, both inclusive.
    pub(crate) keys: (&'a [u8], &'a [u8]),
    /// Least and greatest time; `None`: unknown.
    pub(crate) times: Option<TimeRange>,
}

/// Rule by which two sources may hold versions of the same row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeySharing {
    /// No row version replaces another.
    Never,
    /// Both their keys and their times overlap.
    KeysAndTimes,
    /// Their keys overlap.
    Keys,
}

impl KeySharing {
    /// Returns the rule for a table.
    pub(crate) fn of(schema: &TableSchema, options: &TableOptions) -> Self {
        if options.write_mode == WriteMode::AppendOnly {
            return Self::Never;
        }
        match schema.time_column() {
            Some(time) if schema.primary_key().contains(&time) => Self::KeysAndTimes,
            _ => Self::Keys,
        }
    }
}

/// Partitions sources so that two sources of different parts share no key. Within a part, sources keep
/// the given order.
pub(crate) fn independent(extents: &[Extent<'_>], sharing: KeySharing) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..extents.len()).collect();
    match sharing {
        KeySharing::Never => all.into_iter().map(|source| vec![source]).collect(),
        KeySharing::Keys => by_keys(extents, &all),
        KeySharing::KeysAndTimes => refined(extents, all),
    }
}

/// Splits by keys and by times in turn, until neither splits a part any more.
fn refined(extents: &[Extent<'_>], all: Vec<usize>) -> Vec<Vec<usize>> {
    let mut done = Vec::new();
    let mut parts = by_keys(extents, &all);
    parts.reverse();
    while let Some(part) = parts.pop() {
        let by_times = by_times(extents, &part);
        if by_times.len() <= 1 {
            done.push(part);
            continue;
        }
        for part in by_times.into_iter().rev() {
            let mut by_keys = by_keys(extents, &part);
            if by_keys.len() == 1 {
                done.append(&mut by_keys);
            } else {
                by_keys.reverse();
                parts.append(&mut by_keys);
            }
        }
    }
    done
}

fn by_keys(extents: &[Extent<'_>], part: &[usize]) -> Vec<Vec<usize>> {
    let bounds: Vec<_> = part.iter().map(|source| extents[*source].keys).collect();
    let members = |group: Vec<usize>| group.into_iter().map(|member| part[member]).collect();
    overlapping(&bounds).into_iter().map(members).collect()
}

fn by_times(extents: &[Extent<'_>], part: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<(TimeRange, usize)> = Vec::with_capacity(part.len());
    for source in part {
        // A source of unknown times may share keys with every other.
        let Some(times) = extents[*source].times else { return vec![part.to_vec()] };
        order.push((times, *source));
    }
    order.sort_by_key(|(times, source)| (times.min, *source));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut reach = i64::MIN;
    for (times, source) in order {
        match parts.last_mut() {
            Some(part) if times.min <= reach => part.push(source),
            _ => parts.push(vec![source]),
        }
        reach = reach.max(times.max);
    }
    for part in &mut parts {
        part.sort_unstable();
    }
    parts
}

#[cfg(test)]
mod tests;
