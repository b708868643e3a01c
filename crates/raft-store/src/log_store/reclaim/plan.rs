//! Decisions of the reclaimer, without I/O.

use std::collections::BTreeMap;

use tidewater_common::ids::GroupId;

/// Position of an entry in the order of the keys.
pub(in crate::log_store) type LogPosition = (GroupId, u64);

/// Range of positions, without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::log_store) struct LogSpan {
    pub(in crate::log_store) from: LogPosition,
    pub(in crate::log_store) end: LogPosition,
}

impl LogSpan {
    /// All positions.
    pub(super) const ALL: Self = Self { from: (GroupId(0), 0), end: (GroupId(u64::MAX), u64::MAX) };

    /// Creates the span of a file from its first and last position.
    pub(super) fn of_file(first: LogPosition, last: LogPosition) -> Self {
        let end = match last.1.checked_add(1) {
            Some(next) => (last.0, next),
            None => (GroupId(last.0.get().saturating_add(1)), 0),
        };
        Self { from: first, end }
    }

    fn within(self, other: Self) -> Option<Self> {
        let span = Self { from: self.from.max(other.from), end: self.end.min(other.end) };
        (span.from < span.end).then_some(span)
    }
}

/// Index of the first live entry of each group that has a log. All other entries may be dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LiveLogs(pub(super) BTreeMap<GroupId, u64>);

impl LiveLogs {
    /// Returns the live spans of all groups within a span.
    pub(super) fn live_within(&self, span: LogSpan) -> Vec<LogSpan> {
        let live = |(group, from): (&GroupId, &u64)| {
            LogSpan { from: (*group, *from), end: (*group, u64::MAX) }.within(span)
        };
        self.0.range(span.from.0..=span.end.0).filter_map(live).collect()
    }

    /// Returns the purged part of each group with one, as first and *last* index.
    pub(super) fn purged(&self) -> impl Iterator<Item = (GroupId, u64, u64)> {
        let last = |(group, from): (&GroupId, &u64)| Some((*group, 0, from.checked_sub(1)?));
        self.0.iter().filter_map(last)
    }
}

/// A file of entries, with the bytes of all files in its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MeasuredFile {
    pub(super) span: LogSpan,
    pub(super) level: i32,
    pub(super) bytes: u64,
    /// Bytes of all files within the span.
    pub(super) span_bytes: u64,
    /// Bytes of live entries within the span.
    pub(super) live_bytes: u64,
}

impl MeasuredFile {
    /// Returns the estimated bytes of dropped entries in this file.
    fn dead_bytes(&self) -> u64 {
        let dead = u128::from(self.span_bytes.saturating_sub(self.live_bytes));
        let share = dead * u128::from(self.bytes) / u128::from(self.span_bytes.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Returns whether compacting the file costs at most as much as it releases.
    fn is_worth_compacting(&self) -> bool {
        // RocksDB itself compacts the few files of level 0.
        self.level > 0 && self.dead_bytes() * 2 >= self.bytes.max(1)
    }
}

/// Returns the span to compact next: the neighbouring files of at most `limit` bytes, but at least
/// one file, that release most. `None` while the dead bytes of all files are at most `slack`, since
/// the files that hold them are often deleted whole a little later.
pub(super) fn span_to_compact(files: &[MeasuredFile], slack: u64, limit: u64) -> Option<LogSpan> {
    let dead: u64 = files.iter().map(MeasuredFile::dead_bytes).sum();
    if dead <= slack {
        return None;
    }
    let mut files = files.to_vec();
    files.sort_by_key(|file| (file.level, file.span));
    let mut best: Option<Candidate> = None;
    let mut run: Option<Candidate> = None;
    for file in files {
        if !file.is_worth_compacting() {
            run = None;
            continue;
        }
        let candidate = match run {
            Some(run) if run.level == file.level && run.bytes + file.bytes <= limit => {
                run.with(&file)
            }
            _ => Candidate::of(&file),
        };
        if best.as_ref().is_none_or(|best| candidate.dead > best.dead) {
            best = Some(candidate);
        }
        run = Some(candidate);
    }
    best.map(|best| best.span)
}

/// Neighbouring files of a level.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    span: LogSpan,
    level: i32,
    bytes: u64,
    dead: u64,
}

impl Candidate {
    fn of(file: &MeasuredFile) -> Self {
        Self { span: file.span, level: file.level, bytes: file.bytes, dead: file.dead_bytes() }
    }

    fn with(self, file: &MeasuredFile) -> Self {
        Self {
            span: LogSpan { from: self.span.from, end: self.span.end.max(file.span.end) },
            level: self.level,
            bytes: self.bytes + file.bytes,
            dead: self.dead + file.dead_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
