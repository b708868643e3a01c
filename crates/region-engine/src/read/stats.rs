//! Statistics of a read: what it has read and what it has skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::meters;

macro_rules! scan_stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
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
    };
}

scan_stats! {
    /// Files opened.
    files,
    /// Files skipped because of key range, time range or an index.
    files_pruned,
    /// Files skipped because of an index; included in `files_pruned`.
    files_pruned_by_index,
    /// Row groups of opened files that were read, in whole or in part.
    row_groups,
    /// Row groups of opened files that were skipped.
    row_groups_pruned,
    /// Pages of the requested columns that were read.
    pages,
    /// Pages of the requested columns, in opened files, that were skipped.
    pages_pruned,
    /// Compressed bytes of the pages that were read.
    bytes,
    /// Compressed bytes of the pages that were skipped, and of the files that were not opened.
    bytes_pruned,
}

impl Drop for ScanCounters {
    fn drop(&mut self) {
        meters::record_read(&self.snapshot());
    }
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
