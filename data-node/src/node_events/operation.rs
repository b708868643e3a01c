//! Operations whose durations are recorded.

/// Operation on a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A call that writes rows, its wait for memory included.
    Write,
    /// A call that reads rows by key.
    Get,
    /// A scan, without the time in which it waits for its reader.
    Scan,
    /// A flush.
    Flush,
    /// A compaction on this node, without its wait for a slot.
    Compaction,
}

impl Operation {
    /// Returns the name in events and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Get => "get",
            Self::Scan => "scan",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
        }
    }
}
