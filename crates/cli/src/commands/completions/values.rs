//! Arguments whose values are names or ids of a cluster.

use std::ffi::OsString;
use std::sync::Arc;

use clap::{Command, FromArgMatches};
use clap_complete::ArgValueCandidates;

use super::candidates::{Candidates, candidates};
use crate::commands::client::ClientArgs;

/// Arguments and their candidates: subcommands, id of the argument, candidates.
const ARGUMENTS: &[(&[&str], &str, Candidates)] = &[
    (&["table", "describe"], "name", Candidates::Tables),
    (&["table", "alter"], "name", Candidates::Tables),
    (&["table", "truncate"], "name", Candidates::Tables),
    (&["table", "clone"], "name", Candidates::Tables),
    (&["table", "drop"], "name", Candidates::Tables),
    (&["load"], "name", Candidates::Tables),
    (&["scan"], "name", Candidates::Tables),
    (&["get"], "name", Candidates::Tables),
    (&["delete"], "name", Candidates::Tables),
    (&["route", "list"], "table", Candidates::Tables),
    (&["route", "watch"], "table", Candidates::Tables),
    (&["refresh", "start"], "table", Candidates::Tables),
    (&["refresh", "status"], "table", Candidates::Tables),
    (&["refresh", "cancel"], "table", Candidates::Tables),
    (&["refresh", "pause"], "table", Candidates::Tables),
    (&["refresh", "resume"], "table", Candidates::Tables),
    (&["refresh", "alter"], "table", Candidates::Tables),
    (&["refresh", "history"], "table", Candidates::Tables),
    (&["hold", "acquire"], "tables", Candidates::Tables),
    (&["hold", "list"], "table", Candidates::Tables),
    (&["collection", "policy"], "table", Candidates::Tables),
    (&["collection", "capabilities"], "table", Candidates::Tables),
    (&["export", "create"], "table", Candidates::Tables),
    (&["export", "prepare"], "table", Candidates::Tables),
    (&["region", "list"], "table", Candidates::Tables),
    (&["region", "flush"], "table", Candidates::Tables),
    (&["region", "compact"], "table", Candidates::Tables),
    (&["hook", "add"], "table", Candidates::Tables),
    (&["event", "list"], "table", Candidates::Tables),
    (&["event", "tail"], "table", Candidates::Tables),
    (&["event", "record"], "table", Candidates::Tables),
    (&["gc"], "table", Candidates::Tables),
    (&["bench", "ingest"], "table", Candidates::Tables),
    (&["bench", "scan"], "table", Candidates::Tables),
    (&["region", "describe"], "region", Candidates::Regions),
    (&["region", "flush"], "region", Candidates::Regions),
    (&["region", "compact"], "region", Candidates::Regions),
    (&["region", "files"], "region", Candidates::Regions),
    (&["region", "manifest"], "region", Candidates::Regions),
    (&["route", "split"], "route", Candidates::Regions),
    (&["route", "merge"], "route", Candidates::Regions),
    (&["route", "merge"], "neighbour", Candidates::Regions),
    (&["hook", "pause"], "name", Candidates::Hooks),
    (&["hook", "resume"], "name", Candidates::Hooks),
    (&["hook", "remove"], "name", Candidates::Hooks),
    (&["hold", "acquire"], "like", Candidates::Holds),
    (&["hold", "downgrade"], "name", Candidates::LeasedHolds),
    (&["hold", "renew"], "names", Candidates::LeasedHolds),
    (&["hold", "release"], "names", Candidates::LeasedHolds),
    (&["export", "drop"], "name", Candidates::Exports),
    (&["export", "create"], "token", Candidates::ExportTokens),
    (&["export", "cancel"], "token", Candidates::ExportTokens),
];

/// Adds candidates of the cluster to the command tree. The options in `words` select the cluster, as those
/// of the completed command do.
pub(super) fn with_candidates(tree: Command, words: &[OsString]) -> Command {
    let Some(client) = client_args(&tree, words) else { return tree };
    let client = Arc::new(client);
    ARGUMENTS.iter().fold(tree, |tree, (path, argument, kind)| {
        let client = client.clone();
        let values = ArgValueCandidates::new(move || candidates(&client, *kind));
        with_values(tree, path, argument, values)
    })
}

fn with_values(
    command: Command,
    path: &[&'static str],
    argument: &'static str,
    values: ArgValueCandidates,
) -> Command {
    match path.split_first() {
        Some((name, rest)) => {
            command.mut_subcommand(name, |child| with_values(child, rest, argument, values))
        }
        None => command.mut_arg(argument, |found| found.add(values)),
    }
}

/// Returns the client options of the words. Settings of the environment and of the settings file apply, as
/// defaults of the tree. `None` if the options are invalid.
fn client_args(tree: &Command, words: &[OsString]) -> Option<ClientArgs> {
    let settings = tree.find_subcommand("table")?.find_subcommand("list")?.clone();
    let mut arguments: Vec<OsString> = vec!["list".into()];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--meta" {
            arguments.extend([word.clone(), words.next()?.clone()]);
        } else if word.to_str().is_some_and(|word| word.starts_with("--meta=")) {
            arguments.push(word.clone());
        }
    }
    let matches = settings.try_get_matches_from(arguments).ok()?;
    ClientArgs::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::app::App;

    fn command<'a>(tree: &'a Command, path: &[&str]) -> &'a Command {
        path.iter().fold(tree, |command, name| command.find_subcommand(name).unwrap())
    }

    fn has_candidates(command: &Command, argument: &str) -> bool {
        let found = command.get_arguments().find(|found| found.get_id() == argument);
        found.unwrap().get::<ArgValueCandidates>().is_some()
    }

    #[test]
    fn arguments_with_names_of_the_cluster_have_candidates() {
        let tree = with_candidates(App::command(), &[]);
        for (path, argument, _) in ARGUMENTS {
            assert!(has_candidates(command(&tree, path), argument), "{path:?} {argument}");
        }
        assert!(!has_candidates(command(&tree, &["table", "create"]), "name"));
    }

    #[test]
    fn every_table_and_region_argument_has_candidates() {
        fn walk(command: &Command, lacking: &mut Vec<String>) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if matches!(id, "table" | "region") && !has_candidates(command, id) {
                    lacking.push(format!("{} {id}", command.get_name()));
                }
            }
            command.get_subcommands().for_each(|child| walk(child, lacking));
        }
        let mut lacking = Vec::new();
        walk(&with_candidates(App::command(), &[]), &mut lacking);
        assert!(lacking.is_empty(), "{lacking:?}");
    }

    #[test]
    fn options_of_the_words_select_the_cluster() {
        let meta = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            client_args(&App::command(), &words).map(|client| client.meta)
        };
        let of = |addresses: &[&str]| Some(addresses.iter().map(ToString::to_string).collect());
        assert_eq!(meta(&["tidewater", "scan", "--meta", "h:1,k:2", "fl"]), of(&["h:1", "k:2"]));
        assert_eq!(meta(&["tidewater", "scan", "--meta=h:1", ""]), of(&["h:1"]));
        assert_eq!(meta(&["tidewater", "scan", "--meta"]), None);
    }
}
