//! What the sources of one read share.

use std::sync::Arc;

use tidewater_common::ids::Epoch;

use super::filter::Filter;
use super::stats::Counters;

/// See the module's head. The default is a read of everything that nobody counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadContext {
    /// Rows for which it does not hold may be left out where [`super::pushdown`] allows it; who
    /// reads applies it again.
    pub(crate) filter: Arc<Filter>,
    /// Row versions of later epochs are not read.
    pub(crate) as_of: Option<Epoch>,
    /// What was read and what not.
    pub(crate) counters: Arc<Counters>,
}
