//! The command tree.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::exit::Failure;

/// A distributed table store: writes are replicated by Raft and stored as Parquet on object
/// storage.
#[derive(Debug, Parser)]
#[command(
    name = "tidewater",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  tidewater standalone &\n  tidewater table create airlines --columns \
                  'carrier utf8, name utf8' --primary-key carrier\n  tidewater load airlines \
                  airlines.csv\n  tidewater scan airlines --limit 5\n\nEvery option can also be \
                  set with an environment variable (TIDEWATER_*) or in a TOML file (--config-file)."
)]
pub(crate) struct App {
    // Not a doc comment, in which the brackets would be a link.
    #[arg(
        long,
        global = true,
        env = "TIDEWATER_CONFIG_FILE",
        value_name = "FILE",
        help = "TOML file with settings: one section for each role, and [client]"
    )]
    pub(crate) config_file: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands, one line each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all roles in one process, with a local directory as object store
    Standalone(commands::standalone::Options),
    /// Run a meta node: the catalog, replicated by Raft
    Meta(commands::meta::Options),
    /// Run a data node: rows replicated by Raft and flushed to object storage
    Data(commands::data::Options),
    /// Run a compactor node: compacts files on behalf of data nodes
    Compactor(commands::compactor::Options),
    /// Create, list, describe, alter and drop tables
    #[command(subcommand)]
    Table(commands::table::Table),
    /// Load CSV, NDJSON and Parquet files into a table
    Load(commands::load::Options),
    /// Read the rows of a table
    Scan(commands::scan::Options),
    /// Read rows by their keys
    Get(commands::get::Options),
    /// Delete rows by their keys
    Delete(commands::delete::Options),
    /// Show cluster status and health
    #[command(subcommand)]
    Cluster(commands::cluster::Cluster),
    /// List and change the members of the meta group
    #[command(subcommand)]
    MetaMember(commands::meta_member::MetaMember),
    /// List nodes and change their log level
    #[command(subcommand)]
    Node(commands::node::Node),
    /// List Raft groups and transfer their leadership
    #[command(subcommand)]
    Group(commands::group::Group),
    /// Show and change how routes are balanced
    #[command(subcommand)]
    Balance(commands::balance::Balance),
    /// Show which group serves which key range
    #[command(subcommand)]
    Route(commands::route::Route),
    /// List, follow and cancel long operations
    #[command(subcommand)]
    Procedure(commands::procedure::Procedure),
    /// Mirror sources outside of the cluster in tables
    #[command(subcommand)]
    Refresh(commands::refresh::Refresh),
    /// Keep epochs of tables readable, for a time
    #[command(subcommand)]
    Hold(commands::hold::Hold),
    /// Show and change which epochs of tables can be read
    #[command(subcommand)]
    Collection(commands::collection::Collection),
    /// Export tables and their changes to Parquet objects
    #[command(subcommand)]
    Export(commands::export::Export),
    /// Inspect, flush and compact regions
    #[command(subcommand)]
    Region(commands::region::Region),
    /// List and cancel compactions
    #[command(subcommand)]
    Compaction(commands::compaction::Compaction),
    /// Manage hooks, which report changes of regions to files and URLs
    #[command(subcommand)]
    Hook(commands::hook::Hook),
    /// List and follow the events of the cluster
    #[command(subcommand)]
    Event(commands::event::Event),
    /// Delete unreferenced objects
    Gc(commands::gc::Options),
    /// Show the settings of a command
    #[command(subcommand)]
    Config(commands::config::Config),
    /// Measure the performance of the cluster
    #[command(subcommand)]
    Bench(commands::bench::Bench),
    /// Print a completion script for a shell
    Completions(commands::completions::Options),
}

impl App {
    /// Memory limit in bytes; `None` for commands that hold no rows.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        match &self.command {
            Command::Standalone(options) => Some(options.memory.memory_limit.0),
            Command::Data(options) => Some(options.memory.memory_limit.0),
            Command::Compactor(options) => Some(options.memory_limit.0),
            _ => None,
        }
    }

    /// Returns true if the process runs only a compactor.
    pub(crate) fn is_compactor(&self) -> bool {
        matches!(self.command, Command::Compactor(_))
    }

    /// Number of worker threads of the runtime; `None` means one for each of `cores`.
    pub(crate) fn worker_threads(&self, cores: usize) -> Option<usize> {
        match self.command {
            // A catalog command passes through a dozen short tasks. On few cores, waking another
            // thread for the next task takes longer than it saves: a sixth of the time on two cores.
            Command::Meta(_) => Some((cores / 2).max(1)),
            _ => None,
        }
    }

    /// Runs the command to completion.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Standalone(options) => Box::pin(commands::standalone::run(options)).await,
            Command::Meta(options) => commands::meta::run(options).await,
            Command::Data(options) => Box::pin(commands::data::run(options)).await,
            Command::Compactor(options) => commands::compactor::run(options).await,
            Command::Table(table) => table.run().await,
            Command::Load(options) => commands::load::run(options).await,
            Command::Scan(options) => commands::scan::run(options).await,
            Command::Get(options) => commands::get::run(options).await,
            Command::Delete(options) => commands::delete::run(options).await,
            Command::Cluster(cluster) => cluster.run().await,
            Command::MetaMember(member) => member.run().await,
            Command::Node(node) => node.run().await,
            Command::Group(group) => group.run().await,
            Command::Balance(balance) => balance.run().await,
            Command::Route(route) => route.run().await,
            Command::Procedure(procedure) => procedure.run().await,
            Command::Refresh(refresh) => refresh.run().await,
            Command::Hold(hold) => hold.run().await,
            Command::Collection(collection) => collection.run().await,
            Command::Export(export) => export.run().await,
            Command::Region(region) => region.run().await,
            Command::Compaction(compaction) => compaction.run().await,
            Command::Hook(hook) => hook.run().await,
            Command::Event(event) => event.run().await,
            Command::Gc(options) => commands::gc::run(options).await,
            Command::Config(config) => config.run(Self::command(), self.config_file.as_deref()),
            Command::Bench(bench) => bench.run().await,
            Command::Completions(options) => commands::completions::run(&options),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
        let path = format!("{path} {}", command.get_name());
        visit(&path, command);
        for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
            walk(child, &path, visit);
        }
    }

    #[test]
    fn meta_node_runs_on_half_of_the_cores() {
        let words = "tidewater meta --node-id 1 --listen 127.0.0.1:1 --data-dir d --peers 1=h:1";
        let meta = App::try_parse_from(words.split(' ')).unwrap();
        assert_eq!([1, 2, 3, 16].map(|cores| meta.worker_threads(cores)), [1, 1, 1, 8].map(Some));
    }

    #[test]
    fn command_tree_passes_debug_assertions() {
        App::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_description_and_an_example() {
        let mut lacking = Vec::new();
        walk(&App::command(), "", &mut |path, command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !help.contains("Example:\n  tidewater") || command.get_about().is_none() {
                lacking.push(path.to_owned());
            }
        });
        assert!(lacking.is_empty(), "no example or no description: {lacking:?}");
    }

    #[test]
    fn settings_have_matching_environment_variables() {
        let mut wrong = Vec::new();
        walk(&App::command(), "", &mut |path, command| {
            let server = crate::settings::ROLES.iter().any(|role| path.ends_with(role))
                && path.split(' ').count() == 3;
            for argument in command.get_arguments() {
                let Some(long) = argument.get_long() else { continue };
                let setting = server || ["meta", "output", "timeout"].contains(&long);
                let expected = format!("TIDEWATER_{}", long.replace('-', "_").to_uppercase());
                match argument.get_env().and_then(|name| name.to_str()) {
                    Some(name) if name == expected => {}
                    None if !setting || matches!(long, "help" | "version") => {}
                    found => wrong.push(format!("{path} --{long}: {found:?}")),
                }
            }
        });
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
