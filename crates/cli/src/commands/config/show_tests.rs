use clap::CommandFactory;

use super::*;
use crate::app::App;
use crate::server::logs::DEFAULT_FILTER;

#[test]
fn settings_report_their_sources() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    std::fs::write(&path, "[data]\nmemory-limit = \"1GiB\"\ndata-dir = \"/d\"\n").unwrap();
    let options = vec![OsString::from("--data-dir"), OsString::from("/e")];
    let found = settings(App::command(), "data", options, Some(&path)).unwrap();
    let of = |name: &str| {
        let setting = found.iter().find(|setting| setting.name == name).unwrap();
        (setting.value.as_deref(), setting.source)
    };
    assert_eq!(of("memory-limit"), (Some("1GiB"), "file"));
    assert_eq!(of("data-dir"), (Some("/e"), "option"));
    assert_eq!(of("log-filter"), (Some(DEFAULT_FILTER), "default"));
    assert_eq!(of("listen"), (None, "-"));
}

#[test]
fn client_role_has_settings() {
    let found = settings(App::command(), "client", Vec::new(), None).unwrap();
    assert!(found.iter().any(|setting| setting.name == "meta"), "{found:?}");
}

#[test]
fn setting_has_stable_json_fields() {
    let setting = Setting { name: "a".into(), value: None, source: "default" };
    assert_eq!(
        serde_json::to_string(&setting).unwrap(),
        r#"{"name":"a","value":null,"source":"default"}"#
    );
}
