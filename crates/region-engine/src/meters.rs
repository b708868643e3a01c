//! Metrics of the engine: flushes, reads, caches, hook calls. Names are stable; counters start with the
//! process.

use metrics::{Counter, counter};
use tidewater_common::metric::{Metric, MetricUnit};

use crate::read::ScanStats;

/// Metrics of the engine, on the nodes that open regions.
pub const METRICS: &[Metric] = &[
    Metric::counter("tidewater_flushes_total", MetricUnit::Count)
        .describe("Flushes that were committed."),
    Metric::counter("tidewater_flush_rows_total", MetricUnit::Count)
        .describe("Rows that flushes wrote."),
    Metric::counter("tidewater_flush_bytes_total", MetricUnit::Bytes)
        .describe("Bytes that flushes wrote."),
    Metric::counter("tidewater_read_files_total", MetricUnit::Count)
        .describe("Files that reads opened."),
    Metric::counter("tidewater_read_files_pruned_total", MetricUnit::Count)
        .describe("Files that reads skipped because of key range, time range or an index."),
    Metric::counter("tidewater_read_files_pruned_by_index_total", MetricUnit::Count)
        .describe("Files that reads skipped because of an index."),
    Metric::counter("tidewater_read_row_groups_total", MetricUnit::Count)
        .describe("Row groups of opened files that were read, in whole or in part."),
    Metric::counter("tidewater_read_row_groups_pruned_total", MetricUnit::Count)
        .describe("Row groups of opened files that reads skipped."),
    Metric::counter("tidewater_read_pages_total", MetricUnit::Count)
        .describe("Pages of requested columns that were read."),
    Metric::counter("tidewater_read_pages_pruned_total", MetricUnit::Count)
        .describe("Pages of requested columns, in opened files, that reads skipped."),
    Metric::counter("tidewater_read_bytes_total", MetricUnit::Bytes)
        .describe("Compressed bytes of the pages that were read."),
    Metric::counter("tidewater_read_bytes_pruned_total", MetricUnit::Bytes)
        .describe("Compressed bytes of skipped pages and of files that were not opened."),
    Metric::counter("tidewater_indexes_unusable_total", MetricUnit::Count)
        .describe("Indexes that were missing or damaged when a read loaded them."),
    Metric::counter("tidewater_object_cache_hits_total", MetricUnit::Count).describe(
        "Pieces of objects that were in the object cache or already being fetched for it.",
    ),
    Metric::counter("tidewater_object_cache_misses_total", MetricUnit::Count)
        .describe("Pieces of objects that had to be fetched from the object store."),
    Metric::counter("tidewater_object_cache_values_hits_total", MetricUnit::Count)
        .describe("Decoded columns of blocks that were in the object cache."),
    Metric::counter("tidewater_object_cache_values_misses_total", MetricUnit::Count)
        .describe("Decoded columns of blocks that were not in the object cache."),
    Metric::counter("tidewater_hook_calls_total", MetricUnit::Count)
        .labels(&["event", "hook"])
        .describe("Calls of a hook that have ended."),
    Metric::counter("tidewater_hook_failures_total", MetricUnit::Count)
        .labels(&["event", "hook"])
        .describe("Calls of a hook that failed, panicked or exceeded the time limit."),
];

/// Counts a flush that was committed.
pub(crate) fn record_flush(rows: u64, bytes: u64) {
    counter!("tidewater_flushes_total").increment(1);
    counter!("tidewater_flush_rows_total").increment(rows);
    counter!("tidewater_flush_bytes_total").increment(bytes);
}

/// Adds the statistics of a read that has ended.
pub(crate) fn record_read(stats: &ScanStats) {
    add(stats.files, || counter!("tidewater_read_files_total"));
    add(stats.files_pruned, || counter!("tidewater_read_files_pruned_total"));
    add(stats.files_pruned_by_index, || counter!("tidewater_read_files_pruned_by_index_total"));
    add(stats.row_groups, || counter!("tidewater_read_row_groups_total"));
    add(stats.row_groups_pruned, || counter!("tidewater_read_row_groups_pruned_total"));
    add(stats.pages, || counter!("tidewater_read_pages_total"));
    add(stats.pages_pruned, || counter!("tidewater_read_pages_pruned_total"));
    add(stats.bytes, || counter!("tidewater_read_bytes_total"));
    add(stats.bytes_pruned, || counter!("tidewater_read_bytes_pruned_total"));
}

/// Adds to a counter. With 0 it is not looked up, since most counters of a point read are 0.
fn add(count: u64, counter: impl FnOnce() -> Counter) {
    if count > 0 {
        counter().increment(count);
    }
}

/// Counts an index that was missing or damaged.
pub(crate) fn record_unusable_index() {
    counter!("tidewater_indexes_unusable_total").increment(1);
}

/// Counts the pieces of one lookup in the object cache.
pub(crate) fn record_piece_lookup(hits: usize, misses: usize) {
    counter!("tidewater_object_cache_hits_total").increment(hits as u64);
    counter!("tidewater_object_cache_misses_total").increment(misses as u64);
}

/// Counts the columns of one lookup of decoded values.
pub(crate) fn record_values_lookup(hits: usize, misses: usize) {
    counter!("tidewater_object_cache_values_hits_total").increment(hits as u64);
    counter!("tidewater_object_cache_values_misses_total").increment(misses as u64);
}

/// Counts a hook call that has ended.
pub(crate) fn record_hook_call(hook: &str, event: &'static str) {
    counter!("tidewater_hook_calls_total", "hook" => hook.to_owned(), "event" => event)
        .increment(1);
}

/// Counts a hook call that has failed, in addition to [`record_hook_call`].
pub(crate) fn record_hook_failure(hook: &str, event: &'static str) {
    counter!("tidewater_hook_failures_total", "hook" => hook.to_owned(), "event" => event)
        .increment(1);
}
