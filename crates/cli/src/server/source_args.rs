//! Options of nodes that read sources of refreshable tables: the files that sources may read.

use std::path::{Path, PathBuf};

use clap::Args;
use tidewater_region_engine::storage::Storage;
use tidewater_source_kinds::{SourceAccess, SourceKinds};

use crate::exit::Failure;

/// Directory of the objects that a source reads, below the data directory of its node.
const SPOOL: &str = "sources";

/// Options of nodes that read sources.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Directory below which sources of refreshable tables may read files; without it `file:` sources are
    /// errors. Use the same on all data nodes
    #[arg(long, env = "TIDEWATER_SOURCE_DIR", value_name = "DIR")]
    pub(crate) source_dir: Option<PathBuf>,

    /// Directory below which sources may read passwords and keys; without it they are errors
    #[arg(long, env = "TIDEWATER_SOURCE_SECRET_DIR", value_name = "DIR")]
    pub(crate) source_secret_dir: Option<PathBuf>,
}

impl SourceArgs {
    /// Returns the source kinds, which read only what the arguments allow, and never files of the node.
    /// `object_store`: a URL.
    pub(crate) fn kinds(
        &self,
        data_dir: &Path,
        object_store: &str,
    ) -> Result<SourceKinds, Failure> {
        let protected: Vec<PathBuf> =
            [data_dir.to_owned()].into_iter().chain(Storage::directory(object_store)).collect();
        let access = SourceAccess::new(
            self.source_dir.as_deref(),
            self.source_secret_dir.as_deref(),
            &protected,
        );
        let access = access.map_err(|error| Failure::usage(error.to_string()))?;
        Ok(tidewater_source_kinds::builtin(access, data_dir.join(SPOOL)))
    }
}
