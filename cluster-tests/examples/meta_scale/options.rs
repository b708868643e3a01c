//! Sizes of a measurement, from the command line.

use std::time::Duration;

use tidewater_cluster_tests::{HarnessError, Result};

/// Sizes of a measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// `nodes`: stub data nodes.
    pub(crate) nodes: usize,
    /// `groups`: groups that begin on each node, 1 to 64.
    pub(crate) groups: usize,
    /// `tables`: numbers of tables at which creations are timed, ascending.
    pub(crate) tables: Vec<usize>,
    /// `routes`: routes of each table, at most 256.
    pub(crate) routes: u32,
    /// `watchers`: clients that watch the catalog.
    pub(crate) watchers: usize,
    /// `writers`: writers during an alter.
    pub(crate) writers: usize,
    /// `pause`: milliseconds between two writes of a writer.
    pub(crate) pause: Duration,
    /// `clients`: clients that the writers share.
    pub(crate) clients: usize,
    /// `hooks`: durable hooks on all tables.
    pub(crate) hooks: usize,
    /// `rack`: nodes that are lost at the same time.
    pub(crate) rack: usize,
    /// `samples`: creations that are timed at each number of tables.
    pub(crate) samples: usize,
    /// `kills`: kills of the meta leader.
    pub(crate) kills: usize,
    /// `limit`: seconds until a step of a scenario counts as failed.
    pub(crate) limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 30,
            groups: 1,
            tables: vec![100, 300],
            routes: 3,
            watchers: 50,
            writers: 50,
            pause: Duration::from_millis(100),
            clients: 10,
            hooks: 1,
            rack: 3,
            samples: 10,
            kills: 1,
            limit: Duration::from_secs(120),
        }
    }
}

const NAMES: &str = "nodes, groups, tables, routes, watchers, writers, pause, clients, hooks, rack, samples, kills, limit";

impl Options {
    /// Parses arguments of the form `name=value`; `tables` takes several numbers, separated by commas.
    ///
    /// # Errors
    /// If an argument has another form, an unknown name, or a value that is no number.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        for argument in arguments {
            let Some((name, value)) = argument.split_once('=') else {
                return Err(invalid(&argument, &format!("use NAME=VALUE, with one of {NAMES}")));
            };
            let number = || -> Result<usize> {
                value.parse().map_err(|_| invalid(&argument, "the value is not a number"))
            };
            match name {
                "nodes" => options.nodes = number()?,
                "groups" => options.groups = number()?,
                "tables" => options.tables = numbers(value, &argument)?,
                "routes" => options.routes = u32::try_from(number()?).unwrap_or(u32::MAX),
                "watchers" => options.watchers = number()?,
                "writers" => options.writers = number()?,
                "pause" => options.pause = Duration::from_millis(number()? as u64),
                "clients" => options.clients = number()?,
                "hooks" => options.hooks = number()?,
                "rack" => options.rack = number()?,
                "samples" => options.samples = number()?,
                "kills" => options.kills = number()?,
                "limit" => options.limit = Duration::from_secs(number()? as u64),
                _ => return Err(invalid(&argument, &format!("the names are {NAMES}"))),
            }
        }
        let needed = options.rack + 3;
        if options.nodes < needed {
            return Err(invalid(
                &format!("nodes={}", options.nodes),
                &format!("a rack of {} needs at least {needed}", options.rack),
            ));
        }
        if !(1..=256).contains(&options.routes) {
            return Err(invalid(&format!("routes={}", options.routes), "use 1 to 256"));
        }
        Ok(options)
    }
}

fn numbers(value: &str, argument: &str) -> Result<Vec<usize>> {
    let parsed: Option<Vec<usize>> = value.split(',').map(|part| part.parse().ok()).collect();
    match parsed {
        Some(numbers) if numbers.is_sorted() => Ok(numbers),
        _ => Err(invalid(argument, "use ascending numbers, separated by commas")),
    }
}

fn invalid(argument: &str, remedy: &str) -> HarnessError {
    HarnessError::violated(format!("invalid argument {argument:?}: {remedy}"))
}
