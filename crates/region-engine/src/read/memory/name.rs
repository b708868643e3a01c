//! Names of budgets, for errors.

use std::fmt;

/// Scans that share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetScope {
    /// All scans of the process.
    Node,
    /// The scans of one connection.
    Connection,
    /// The scans of one network, which may have many connections.
    Network,
}

impl fmt::Display for BudgetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "on this node",
            Self::Connection => "on this connection",
            Self::Network => "from this network",
        })
    }
}

/// Use of the memory of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryUse {
    /// Values that rows are compared with.
    Arguments,
    /// Open files and rows being merged.
    Sources,
    /// Encoded rows that readers have yet to take.
    Messages,
    /// Rows of point reads.
    PointReads,
    /// Rows of regions that refreshes compare with staged ones.
    Comparisons,
}

/// Name of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetName {
    /// Scans that share the budget.
    pub scope: BudgetScope,
    /// Use of its memory.
    pub memory_use: MemoryUse,
}

impl BudgetName {
    /// Returns an advice to a caller whose scan does not fit into the budget.
    pub fn remedy(self) -> &'static str {
        match self.memory_use {
            MemoryUse::Arguments => "shorten the lists of values",
            MemoryUse::Sources => "read fewer columns or smaller key ranges, compact the region",
            MemoryUse::Messages => "read or close open scans",
            MemoryUse::PointReads => "read fewer keys or columns",
            MemoryUse::Comparisons => "compact the region",
        }
    }
}

impl fmt::Display for BudgetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory_use = match self.memory_use {
            MemoryUse::Arguments => "the arguments of all scans",
            MemoryUse::Sources => "the open files of all scans",
            MemoryUse::Messages => "the unread rows of all scans",
            MemoryUse::PointReads => "all point reads",
            MemoryUse::Comparisons => "the comparisons of all refreshes",
        };
        write!(f, "{memory_use} {}", self.scope)
    }
}
