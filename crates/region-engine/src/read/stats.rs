//! What a read has looked at, and what it was spared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;

macro_rules! scan_stats {
    ($($(#[$doc:meta])* $name:ident => $metric:literal,)*) => {
        /// A read in numbers, as far as it has come.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ScanStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Counts for one read; adds them to the process's metrics when the read ends.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Count,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ScanStats {
                ScanStats { $($name: self.$name.get(),)* }
            }
        }

        impl Drop for Counters {
            fn drop(&mut self) {
                $(if self.$name.get() > 0 {
                    counter!($metric).increment(self.$name.get());
                })*
            }
        }
    };
}

scan_stats! {
    /// Files that were opened.
    files => "tidewater_read_files_total",
    /// Files that key range, time range or an index ruled out.
    files_pruned => "tidewater_read_files_pruned_total",
    /// Of these, those that an index ruled out.
    files_pruned_by_index => "tidewater_read_files_pruned_by_index_total",
    /// Row groups of opened files that were read, in whole or in part.
    row_groups => "tidewater_read_row_groups_total",
    /// Row groups of opened files that were not.
    row_groups_pruned => "tidewater_read_row_groups_pruned_total",
    /// Pages of the columns wanted that were read.
    pages => "tidewater_read_pages_total",
    /// Pages of the columns wanted, in opened files, that were not.
    pages_pruned => "tidewater_read_pages_pruned_total",
    /// Compressed bytes of the pages that were read.
    bytes => "tidewater_read_bytes_total",
    /// Compressed bytes of the pages that were not, and of the files that were not opened.
    bytes_pruned => "tidewater_read_bytes_pruned_total",
}

/// A number that is counted up.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells how a read is getting on.
#[derive(Debug, Clone, Default)]
pub struct ScanMeter(pub(crate) Arc<Counters>);

impl ScanMeter {
    /// The numbers at this moment.
    pub fn stats(&self) -> ScanStats {
        self.0.snapshot()
    }
}
