use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

use super::*;
use crate::app::{App, Command as Verb};

fn os(arguments: &[&str]) -> Vec<OsString> {
    arguments.iter().map(OsString::from).collect()
}

fn with_file(text: &str, arguments: &[&str]) -> clap::ArgMatches {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    with_defaults(App::command(), Some(&path)).unwrap().try_get_matches_from(arguments).unwrap()
}

#[test]
fn file_settings_are_defaults_of_the_command_line() {
    let text = "[data]\nlisten = \"127.0.0.1:1\"\ndata-dir = \"/d\"\nmeta = [\"a:1\", \"b:2\"]\n\
                object-store = \"memory:///\"\nmemory_limit = \"1GiB\"\ninsecure = true\n";
    let matches = with_file(text, &["tidewater", "data", "--listen", "127.0.0.1:2"]);
    let app = App::from_arg_matches(&matches).unwrap();
    let Verb::Data(options) = app.command else { panic!("{app:?}") };
    assert_eq!(options.listen.listen.to_string(), "127.0.0.1:2");
    assert_eq!(options.join.meta, ["a:1", "b:2"]);
    assert!(options.listen.exposure.insecure);
    assert_eq!(options.memory.memory_limit.0, 1 << 30);
    let (_, data) = matches.subcommand().unwrap();
    assert_eq!(data.value_source("listen"), Some(ValueSource::CommandLine));
    assert_eq!(data.value_source("data_dir"), Some(ValueSource::DefaultValue));
}

#[test]
fn replace_after_can_be_set_in_the_file() {
    let line = &[
        "tidewater",
        "meta",
        "--node-id",
        "1",
        "--listen",
        "127.0.0.1:1",
        "--data-dir",
        "/d",
        "--peers",
        "1=127.0.0.1:1",
    ];
    for (text, expected) in [("", 600), ("[meta]\nreplace-after = \"90s\"\n", 90)] {
        let app = App::from_arg_matches(&with_file(text, line)).unwrap();
        let Verb::Meta(options) = app.command else { panic!("{app:?}") };
        assert_eq!(options.replace_after.duration().as_secs(), expected);
    }
}

#[test]
fn client_section_applies_to_every_client_command() {
    let text = "[client]\nmeta = [\"a:1\"]\noutput = \"json\"\n";
    for arguments in [
        &["tidewater", "table", "list"][..],
        &["tidewater", "scan", "t"],
        &["tidewater", "region", "flush", "7"],
    ] {
        let matches = with_file(text, arguments);
        let (_, mut leaf) = matches.subcommand().unwrap();
        while let Some((_, child)) = leaf.subcommand() {
            leaf = child;
        }
        let meta: Vec<&String> = leaf.get_many("meta").unwrap().collect();
        assert_eq!(meta, ["a:1"], "{arguments:?}");
    }
}

#[test]
fn config_file_path_is_found_before_parsing() {
    let environment = Some(OsString::from("env.toml"));
    let found = |arguments: &[&str]| config_path(&os(arguments), environment.clone());
    assert_eq!(found(&["tidewater", "--config-file", "a.toml", "x"]), Some("a.toml".into()));
    assert_eq!(found(&["tidewater", "x", "--config-file=b.toml"]), Some("b.toml".into()));
    assert_eq!(found(&["tidewater", "x", "--", "--config-file=b.toml"]), Some("env.toml".into()));
    assert_eq!(config_path(&os(&["tidewater"]), None), None);
}
