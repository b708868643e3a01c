//! Context shared by the sources of one read.

use std::sync::Arc;

use tidewater_common::ids::Epoch;

use super::filter::Filter;
use super::stats::ScanCounters;

/// Context of a read. The default reads everything, with counters of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadContext {
    /// Rows that do not pass may be skipped where [`super::pushdown`] allows it; the reader applies
    /// the filter again.
    pub(crate) filter: Arc<Filter>,
    /// Row versions of later epochs are not read.
    pub(crate) as_of: Option<Epoch>,
    /// Statistics of the read.
    pub(crate) counters: Arc<ScanCounters>,
}
