//! Statistics of a read: what it has read and what it has skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;

macro_rules! scan_stats {
    ($($(#[$doc:meta])* $name:ident => $metric:literal,)*) => {
        /// Statistics of a read up to now.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ScanStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Counters of one read; added to the metrics of the process when the read ends.
        #[derive(Debug, Default)]
        pub(crate) struct ScanCounters {
            $(pub(crate) $name: ScanCounter,)*
        }

        impl ScanCounters {
            pub(crate) fn snapshot(&self) -> ScanStats {
                ScanStats { $($name: self.$name.get(),)* }
            }
        }

        impl Drop for ScanCounters {
            fn drop(&mut self) {
                $(if self.$name.get() > 0 {
                    counter!($metric).increment(self.$name.get());
                })*
            }
        }
    };
}

scan_stats! {
    /// Files opened.
    files => "tidewater_read_files_total",
    /// Files skipped because of key range, time range or an index.
    files_pruned => "tidewater_read_files_pruned_total",
    /// Files skipped because of an index; included in `files_pruned`.
    files_pruned_by_index => "tidewater_read_files_pruned_by_index_total",
    /// Row groups of opened files that were read, in whole or in part.
    row_groups => "tidewater_read_row_groups_total",
    /// Row groups of opened files that were skipped.
    row_groups_pruned => "tidewater_read_row_groups_pruned_total",
    /// Pages of the requested columns that were read.
    pages => "tidewater_read_pages_total",
    /// Pages of the requested columns, in opened files, that were skipped.
    pages_pruned => "tidewater_read_pages_pruned_total",
    /// Compressed bytes of the pages that were read.
    bytes => "tidewater_read_bytes_total",
    /// Compressed bytes of the pages that were skipped, and of the files that were not opened.
    bytes_pruned => "tidewater_read_bytes_pruned_total",
}

/// Counter of one read.
#[derive(Debug, Default)]
pub(crate) struct ScanCounter(AtomicU64);

impl ScanCounter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Handle to the statistics of a running read.
#[derive(Debug, Clone, Default)]
pub struct ScanMeter(pub(crate) Arc<ScanCounters>);

impl ScanMeter {
    /// Returns the statistics up to now.
    pub fn stats(&self) -> ScanStats {
        self.0.snapshot()
    }
}
