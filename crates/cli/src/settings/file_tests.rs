use clap::CommandFactory;

use super::*;
use crate::app::App;

fn rejection(text: &str) -> String {
    SettingsFile::parse("t.toml", text)
        .and_then(|file| file.set_defaults(App::command()))
        .map(|_| ())
        .unwrap_err()
        .message
}

#[test]
fn invalid_settings_are_named() {
    for (text, part) in [
        ("a = = b", "not valid TOML"),
        ("[server]\nx = 1", "unknown section [server]"),
        ("data = 1", "must be a section"),
        ("[data]\nlisten = {a = 1}", "[data] listen"),
        ("[data]\nlistne = \"x\"", "unknown setting `listne`"),
        ("[client]\nlisten = \"x\"", "unknown setting `listen`"),
    ] {
        let message = rejection(text);
        assert!(message.starts_with("t.toml: ") && message.contains(part), "{text}: {message}");
    }
}

#[test]
fn setting_names_accept_hyphens_and_underscores() {
    let file = SettingsFile::parse("t", "[data]\nmemory_limit = 1\ndata-dir = \"x\"").unwrap();
    assert!(file.sets("data", "memory-limit") && file.sets("data", "data-dir"));
    assert!(!file.sets("meta", "data-dir"));
}
