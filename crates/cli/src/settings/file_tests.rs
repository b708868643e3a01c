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

#[test]
fn settings_file_is_regular_and_small() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 1 << 20]).unwrap();
    assert!(SettingsFile::read(&large).is_ok());
    std::fs::write(&large, vec![b'#'; (1 << 20) + 1]).unwrap();
    for (path, exit, part) in [
        (large.as_path(), Exit::Usage, "the maximum is 1048576"),
        (Path::new("/dev/zero"), Exit::Other, "not a regular file"),
        (&dir.path().join("none"), Exit::NotFound, "No such file"),
    ] {
        let failure = SettingsFile::read(path).unwrap_err();
        assert!(failure.exit == exit && failure.message.contains(part), "{}", failure.message);
    }
}
