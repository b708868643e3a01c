//! Options of roles that join a cluster, and of roles that keep rows in memory.

use clap::Args;
use tidewater_common::address::parse_address;
use tidewater_data_node::options::DataOptions;
use tidewater_region_engine::storage::{Storage, StorageError};

use crate::text::size::{Size, SizeError};
use crate::text::time_span::{TimeSpan, TimeSpanError};

/// Options to join a cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct Join {
    /// Addresses of meta nodes; one reachable node is enough
    #[arg(
        long,
        env = "TIDEWATER_META",
        value_name = "ADDR",
        value_delimiter = ',',
        value_parser = parse_address,
        required = true
    )]
    pub(crate) meta: Vec<String>,

    /// Object store URL: file:///DIR, s3://BUCKET/PREFIX
    #[arg(long, env = "TIDEWATER_OBJECT_STORE", value_name = "URL", value_parser = object_store)]
    pub(crate) object_store: String,

    #[command(flatten)]
    pub(crate) clock: ClockArgs,
}

/// Tolerance of clocks, for all roles.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClockArgs {
    /// Difference from the cluster's clocks beyond which a node's clock is wrong: it then commits
    /// nothing and leads no groups; use the same value on all nodes
    #[arg(long, env = "TIDEWATER_MAX_CLOCK_DIFFERENCE", value_name = "TIME", default_value = "10m",
          value_parser = clock_difference)]
    pub(crate) max_clock_difference: TimeSpan,
}

/// Parses a difference of clocks.
fn clock_difference(text: &str) -> Result<TimeSpan, ClockDifferenceError> {
    let span: TimeSpan = text.parse()?;
    if span.0 == 0 {
        return Err(ClockDifferenceError::Zero);
    }
    Ok(span)
}

/// An invalid difference of clocks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClockDifferenceError {
    #[error(transparent)]
    TimeSpan(#[from] TimeSpanError),
    #[error("must be more than 0: clocks always differ a little, e.g. 10m")]
    Zero,
}

/// Memory options of a process with unflushed rows.
#[derive(Debug, Clone, Args)]
pub(crate) struct RowMemory {
    /// Memory limit of the process; writes stall when unflushed rows reach a third of it
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "1GiB",
          value_parser = memory_limit)]
    pub(crate) memory_limit: Size,

    /// Memory for cached ranges of files [default: an eighth of the memory limit]
    #[arg(long, env = "TIDEWATER_OBJECT_CACHE", value_name = "SIZE")]
    pub(crate) object_cache: Option<Size>,
}

/// Parses the URL of an object store.
fn object_store(text: &str) -> Result<String, StorageError> {
    Storage::check_url(text).map(|()| text.to_owned())
}

/// Parses a memory limit that is sufficient for a data node.
fn memory_limit(text: &str) -> Result<Size, MemoryLimitError> {
    checked_limit(text, "data", DataOptions::MIN_MEMORY_LIMIT)
}

/// Parses a memory limit and checks it against the minimum of a role, in bytes.
pub(crate) fn checked_limit(
    text: &str,
    role: &'static str,
    minimum: u64,
) -> Result<Size, MemoryLimitError> {
    let size: Size = text.parse()?;
    if size.0 < minimum {
        return Err(MemoryLimitError::TooLow { role, size, minimum: Size(minimum) });
    }
    Ok(size)
}

/// An invalid memory limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryLimitError {
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("{size} is too small for a {role} node (minimum {minimum})")]
    TooLow { role: &'static str, size: Size, minimum: Size },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_object_store_url_is_rejected() {
        for url in ["file:///var/lib", "s3://bucket/prefix", "memory:///"] {
            assert_eq!(object_store(url).unwrap(), url);
        }
        for url in ["nonsense://somewhere", "not a url", "file://relative/dir", "s3://"] {
            assert!(matches!(object_store(url), Err(StorageError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn data_node_rejects_too_small_memory_limit() {
        assert_eq!(memory_limit("768MiB"), Ok(Size(768 << 20)));
        let low = memory_limit("767MiB").unwrap_err();
        assert!(matches!(low, MemoryLimitError::TooLow { .. }));
        assert_eq!(low.to_string(), "767MiB is too small for a data node (minimum 768MiB)");
        assert!(matches!(memory_limit("much"), Err(MemoryLimitError::Size(_))));
    }
}
