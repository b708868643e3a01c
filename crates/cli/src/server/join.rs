//! Options of roles that join a cluster, and of those that keep rows in memory.

use clap::Args;

use crate::text::size::Size;

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
    #[arg(long, env = "TIDEWATER_OBJECT_STORE", value_name = "URL")]
    pub(crate) object_store: String,
}

/// How much memory a process with unflushed rows may take.
#[derive(Debug, Clone, Args)]
pub(crate) struct RowMemory {
    /// Memory that the process may take; writers stall when unflushed rows take a third of it
    #[arg(long, env = "TIDEWATER_MEMORY_LIMIT", value_name = "SIZE", default_value = "1GiB")]
    pub(crate) memory_limit: Size,

    /// Memory for pieces of files that were read; an eighth of the memory limit unless given
    #[arg(long, env = "TIDEWATER_OBJECT_CACHE", value_name = "SIZE")]
    pub(crate) object_cache: Option<Size>,
}
