//! Options of roles that join a cluster, and of those that keep rows in memory.

use clap::Args;
use tidewater_data_node::options::DataOptions;
use tidewater_region_engine::storage::{Storage, StorageError};

use crate::text::size::{Size, SizeError};

/// Where the cluster is, and where its files come to rest.
#[derive(Debug, Clone, Args)]
pub(crate) struct Join {
    /// Addresses of meta nodes; one that answers is enough
    #[arg(
        long,
        env = "TIDEWATER_META",
        value_name = "ADDR",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) meta: Vec<String>,

    /// Where files come to rest: file:///DIR, s3://BUCKET/PREFIX
    #[arg(long, env = "TIDEWATER_OBJECT_STORE", value_name = "URL", value_parser = object_store)]
    pub(crate) object_store: String,
}

/// How much memory a process with unflushed rows may take.
#[derive(Debug, Clone, Args)]
pub(crate) struct RowMemory {
    /// Memory that the process may take; writers stall when unflushed rows take a third of it
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "1GiB",
          value_parser = memory_limit)]
    pub(crate) memory_limit: Size,

    /// Memory for pieces of files that were read; an eighth of the memory limit unless given
    #[arg(long, env = "TIDEWATER_OBJECT_CACHE", value_name = "SIZE")]
    pub(crate) object_cache: Option<Size>,
}

/// The URL of an object store.
fn object_store(text: &str) -> Result<String, StorageError> {
    Storage::check_url(text).map(|()| text.to_owned())
}

/// A size that a data node can stay within.
fn memory_limit(text: &str) -> Result<Size, MemoryLimitError> {
    checked_limit(text, "data", DataOptions::LEAST_MEMORY_LIMIT)
}

/// A size that a node of a role can stay within.
pub(crate) fn checked_limit(
    text: &str,
    role: &'static str,
    least: u64,
) -> Result<Size, MemoryLimitError> {
    let (size, least) = (text.parse::<Size>()?, Size(least));
    if size.0 < least.0 { Err(MemoryLimitError::TooLow { role, size, least }) } else { Ok(size) }
}

/// A memory limit that cannot be kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryLimitError {
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("a {role} node does not get by on {size}: give it {least} or more")]
    TooLow { role: &'static str, size: Size, least: Size },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_no_store_is_refused() {
        for url in ["file:///var/lib", "s3://bucket/prefix", "memory:///"] {
            assert_eq!(object_store(url).unwrap(), url);
        }
        for url in ["nonsense://somewhere", "not a url", "file://relative/dir", "s3://"] {
            assert!(matches!(object_store(url), Err(StorageError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn a_limit_that_cannot_be_kept_is_refused() {
        assert_eq!(memory_limit("768MiB"), Ok(Size(768 << 20)));
        let low = memory_limit("767MiB").unwrap_err();
        assert!(matches!(low, MemoryLimitError::TooLow { .. }));
        assert_eq!(
            low.to_string(),
            "a data node does not get by on 767MiB: give it 768MiB or more"
        );
        assert!(matches!(memory_limit("much"), Err(MemoryLimitError::Size(_))));
    }
}
