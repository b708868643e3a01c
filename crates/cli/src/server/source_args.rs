//! Options of nodes that read sources of refreshable tables and write exports: the files that they may read and write, and
//! the hosts that they may call.

use std::path::{Path, PathBuf};

use clap::Args;
use tidewater_common::granted_dirs::DirectoryGrants;
use tidewater_source_kinds::{ExportTargets, SourceAccess, SourceHost, SourceHosts, SourceKinds};

use crate::exit::Failure;

/// Directory of the objects that a source reads, below the data directory of its node.
const SPOOL: &str = "sources";

/// Free disk space that these objects leave, as a multiple of the reserve. A node refuses writes below its reserve, which
/// the next write would reach.
const FREE_RESERVES: u64 = 2;

/// Options of nodes that read sources and write exports.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// Directory below which sources of refreshable tables may read files; without it `file:` sources are
    /// errors. Use the same on all data nodes
    #[arg(long, env = "TIDEWATER_SOURCE_DIR", value_name = "DIR")]
    pub(crate) source_dir: Option<PathBuf>,

    /// Directory below which sources and exports may read passwords and keys; without it they are errors
    #[arg(long, env = "TIDEWATER_SOURCE_SECRET_DIR", value_name = "DIR")]
    pub(crate) source_secret_dir: Option<PathBuf>,

    /// Hosts that sources and exports may call, separated by commas: host, host:port, *.suffix, address or network
    /// (10.0.0.0/8). Loopback, link-local and metadata addresses need an entry of such addresses, e.g.
    /// 127.0.0.1:5432 [default: all addresses except for these]
    #[arg(long, env = "TIDEWATER_SOURCE_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub(crate) source_hosts: Vec<SourceHost>,

    /// Directory below which exports may write files, e.g. /srv/exports; without it exports to `file:` URLs
    /// are errors. Use the same on all data nodes, on a file system that they share
    #[arg(long, env = "TIDEWATER_EXPORT_DIR", value_name = "DIR")]
    pub(crate) export_dir: Option<PathBuf>,
}

impl SourceArgs {
    /// Returns the source kinds and the targets of exports, which use only what the arguments allow. Their directories overlap
    /// with none of `grants`. `disk_reserve`: bytes that must be free on the disk of the data directory.
    pub(crate) fn kinds_and_targets(
        &self,
        data_dir: &Path,
        disk_reserve: u64,
        grants: &mut DirectoryGrants,
    ) -> Result<(SourceKinds, ExportTargets), Failure> {
        let access = SourceAccess::new(
            self.source_dir.as_deref(),
            self.source_secret_dir.as_deref(),
            grants,
        );
        let access = access
            .map_err(|error| Failure::usage(error.to_string()))?
            .with_hosts(SourceHosts::new(self.source_hosts.clone()))
            .with_free_bytes(disk_reserve.saturating_mul(FREE_RESERVES));
        let targets = ExportTargets::new(access.clone(), self.export_dir.as_deref(), grants)
            .map_err(|error| Failure::usage(error.to_string()))?;
        Ok((tidewater_source_kinds::builtin(access, data_dir.join(SPOOL)), targets))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::server::hook_limits::{HookArgs, directory_grants};

    #[derive(Debug, Parser)]
    struct Node {
        #[command(flatten)]
        hooks: HookArgs,

        #[command(flatten)]
        sources: SourceArgs,
    }

    fn parse(arguments: &[&str]) -> Result<Node, clap::Error> {
        Node::try_parse_from([&["node"][..], arguments].concat())
    }

    fn grant(arguments: &[&str], data_dir: &Path) -> Result<(), Failure> {
        let Node { hooks, sources } = parse(arguments).unwrap();
        let events = data_dir.with_file_name("events");
        let mut grants = directory_grants(Some(data_dir), Some(events), "memory:///");
        hooks.access(&mut grants)?;
        sources.kinds_and_targets(data_dir, 1, &mut grants).map(drop)
    }

    #[test]
    fn directories_of_hooks_sources_and_exports_overlap_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let names = ["data", "events", "hooks", "sources", "sources/below", "secrets", "exports"];
        let [data, events, hooks, sources, below, secrets, exports] = names.map(|name| {
            let path = root.join(name);
            std::fs::create_dir(&path).unwrap();
            path.display().to_string()
        });
        let data = Path::new(&data);
        let separate =
            ["--hook-dir", &hooks, "--source-dir", &sources, "--source-secret-dir", &secrets];
        grant(&[&separate[..], &["--export-dir", &exports]].concat(), data).unwrap();
        for arguments in [
            ["--hook-secret-dir", &below, "--source-dir", &sources],
            ["--hook-secret-dir", &secrets, "--source-secret-dir", &secrets],
            ["--hook-dir", &sources, "--source-dir", &below],
            ["--source-dir", &sources, "--source-secret-dir", &below],
            ["--source-dir", &sources, "--hook-dir", &events],
            ["--source-dir", &sources, "--export-dir", &below],
            ["--source-secret-dir", &secrets, "--export-dir", &secrets],
            ["--hook-dir", &hooks, "--export-dir", &hooks],
        ] {
            grant(&arguments, data).expect_err(&arguments.concat());
        }
        for option in ["--source-dir", "--export-dir"] {
            grant(&[option, &root.display().to_string()], data).unwrap_err();
        }
    }

    #[test]
    fn source_hosts_are_a_list() {
        assert!(parse(&[]).unwrap().sources.source_hosts.is_empty());
        let list = "db.example.org:5432,*.example.org,10.0.0.0/8";
        let parsed = parse(&["--source-hosts", list, "--source-hosts", "::1"]).unwrap();
        assert_eq!(parsed.sources.source_hosts.len(), 4);
        let error = parse(&["--source-hosts", "https://h"]).unwrap_err().to_string();
        assert!(error.contains("write a host, host:port"), "{error}");
    }
}
