//! Options of nodes that call hooks: time limits, so that a bad hook cannot slow a node down, and the
//! files and addresses that hooks may use.

use std::path::{Path, PathBuf};

use clap::Args;
use tidewater_common::granted_dirs::DirectoryGrants;
use tidewater_hook_kinds::HookAccess;
use tidewater_region_engine::hooks::HookLimits;
use tidewater_region_engine::storage::Storage;

use crate::exit::Failure;
use crate::text::time_span::TimeSpan;

/// Options of nodes that call hooks.
#[derive(Debug, Clone, Args)]
pub(crate) struct HookArgs {
    /// Timeout of one hook call, which blocks its caller at most that long
    #[arg(long, env = "TIDEWATER_HOOK_TIMEOUT", value_name = "TIME", default_value = "5s")]
    pub(crate) hook_timeout: TimeSpan,

    /// Directory below which jsonl hooks may write; without it they are errors. Use the same on all
    /// data and compactor nodes
    #[arg(long, env = "TIDEWATER_HOOK_DIR", value_name = "DIR")]
    pub(crate) hook_dir: Option<PathBuf>,

    /// Directory below which webhooks may read their secret_file; without it secrets are errors
    #[arg(long, env = "TIDEWATER_HOOK_SECRET_DIR", value_name = "DIR")]
    pub(crate) hook_secret_dir: Option<PathBuf>,

    /// Allow webhooks to call private, loopback, link-local and other addresses that are not public
    #[arg(long, env = "TIDEWATER_ALLOW_PRIVATE_WEBHOOKS")]
    pub(crate) allow_private_webhooks: bool,
}

impl HookArgs {
    /// Returns the arguments as hook limits.
    pub(crate) fn limits(&self) -> HookLimits {
        HookLimits { time_limit: self.hook_timeout.duration(), ..HookLimits::default() }
    }

    /// Returns the permissions of hooks, which are those of the arguments. Their directories overlap with none of `grants`.
    pub(crate) fn access(&self, grants: &mut DirectoryGrants) -> Result<HookAccess, Failure> {
        let access = HookAccess::with_grants(
            self.hook_dir.as_deref(),
            self.hook_secret_dir.as_deref(),
            self.allow_private_webhooks,
            grants,
        );
        access.map_err(|error| Failure::usage(error.to_string()))
    }
}

/// Returns the check of the directories that the operator grants to hooks, sources and exports: those of a process overlap
/// neither with each other nor with its own files. `event_dir`: directory of its events; `object_store`: a URL.
pub(crate) fn directory_grants(
    data_dir: Option<&Path>,
    event_dir: Option<PathBuf>,
    object_store: &str,
) -> DirectoryGrants {
    let data_dir = data_dir.map(Path::to_owned);
    let own = data_dir.into_iter().chain(event_dir).chain(Storage::directory(object_store));
    DirectoryGrants::new(&own.collect::<Vec<PathBuf>>())
}
