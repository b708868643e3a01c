//! Tests of the command without a cluster: exit statuses, messages, help.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::TcpListener;
use std::process::{Command, Output};

fn tidewater(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewater"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEWATER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns an address without a listener.
fn unused_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn invalid_command_line_exits_with_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["table"],
        &["table", "create", "t"],
        &["table", "create", "t", "--columns", "a text", "--primary-key", "a"],
        &["table", "create", "t", "--columns", "a utf8", "--primary-key", "b"],
        &["table", "create", "t", "--columns", "a utf8", "--primary-key", "a", "--ttl", "soon"],
        &["scan"],
        &["scan", "t", "--count", "--order-by", "a"],
        &["scan", "t", "--sum", "a", "--order-by", "a"],
        &["scan", "t", "--sum", "a", "--limit", "1"],
        &["scan", "t", "--sum", "a", "--columns", "a"],
        &["scan", "t", "--count", "--columns", "a", "--limit", "1"],
        &["scan", "t", "--order-by", ":desc"],
        &["scan", "t", "--order-by", "a,a:desc"],
        &["scan", "t", "--sort-memory", "1MiB"],
        &["scan", "t", "--order-by", "a", "--sort-memory", "much"],
        &["scan", "t", "--as-of", "yesterday"],
        &["get", "t"],
        &["get", "t", "k", "--as-of", "-1"],
        &["load", "t"],
        &["load", "t", "-", "-"],
        &["load", "t", "a.csv", "--primary-key", "a"],
        &["load", "t", "a.csv", "--columns", "a utf8"],
        &["load", "t", "a.csv", "--create", "--unchecked"],
        &["load", "t", "a.csv", "--create", "--columns", "a text"],
        &["load", "t", "a.csv", "--delimiter", "ab"],
        &["region", "flush"],
        &["hold", "acquire", "h"],
        &["hold", "acquire", "h", "t", "--like", "g"],
        &["hold", "acquire", "h", "t", "--epoch", "1", "--as-of", "5m"],
        &["hold", "acquire", "h", "t", "--lease", "long"],
        &["hold", "acquire", "h", "t", "--lease", "0s"],
        &["hold", "acquire", "h", "t", "--lease", "31d"],
        &["hold", "downgrade", "h"],
        &["hold", "downgrade", "h", "--epoch", "1", "--as-of", "5m"],
        &["hold", "renew"],
        &["hold", "release"],
        &["bench", "holds", "--tables", "1000", "--holds", "999"],
        &["bench", "holds", "--requests", "0"],
        &["bench", "holds", "--cleanup", "maybe"],
        &["bench", "ingest", "--keys", "0"],
        &["bench", "scan", "--count", "--columns", "a"],
        &["collection", "policy", "t"],
        &["collection", "policy", "t", "--keep-all", "--lag", "1h"],
        &["collection", "policy", "t", "--keep-all", "--granularity", "1m"],
        &["collection", "capabilities", "t"],
        &["collection", "capabilities", "t", "--add", "5m"],
        &["collection", "capabilities", "--remove", "1"],
        &["export", "create", "e", "--table", "t"],
        &["export", "create", "e", "--to", "file:///x"],
        &["export", "create", "e", "--table", "t", "--to", "file:///x", "--config", "[]"],
        &["export", "create", "e", "--table", "t", "--to", "s3://x", "--config", "{\"url\": 1}"],
        &["export", "create", "e", "--table", "t", "--to", "file:///x", "--every", "0s"],
        &["export", "create", "e", "--table", "t", "--to", "file:///x", "--as-of", "yesterday"],
        &["export", "drop"],
        &["export", "prepare", "t", "--as-of", "0"],
        &["export", "prepare", "t", "--lease", "9s"],
        &["export", "cancel"],
        &["event", "list", "--since", "soon"],
        &["event", "list", "--since", "1m", "--until", "2m"],
        &["event", "list", "--limit", "0"],
        &["event", "list", "--type", "Node"],
        &["event", "record"],
        &["event", "record", "--spool", "x", "--payload", "{}"],
        &["standalone", "--events", "kafka"],
        &["standalone", "--event-types", "Node"],
        &["standalone", "--event-spool", "1MiB"],
        &["standalone", "--event-ttl", "0s"],
        &["data", "--listen", "nonsense"],
        &["meta", "--node-id", "1", "--listen", "127.0.0.1:0", "--data-dir", "x", "--peers", "a"],
        &["table", "list", "--output", "xml"],
    ] {
        let output = tidewater(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_output_contains_an_example() {
    for arguments in [
        &["--help"][..],
        &["standalone", "--help"],
        &["load", "--help"],
        &["meta-member", "replace", "--help"],
        &["bench", "ingest", "--help"],
        &["bench", "holds", "--help"],
        &["export", "create", "--help"],
    ] {
        let output = tidewater(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("Example:\n  tidewater"), "{arguments:?}");
    }
}

#[test]
fn export_help_explains_wait_and_permissions() {
    let help = stdout(&tidewater(&["export", "create", "--help"]));
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    for part in [
        "--to <URL>",
        "--as-of <EPOCH|TIME>",
        "--every <TIME>",
        "must have no objects",
        "exit status 5",
        "--export-dir",
        "--source-secret-dir",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn capabilities_help_explains_leases_and_counts() {
    let help = stdout(&tidewater(&["collection", "capabilities", "--help"]));
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    for part in [
        "--add <EPOCH>",
        "--remove <EPOCH>",
        "neither a lease nor a name",
        "`tidewater hold acquire`",
        "leaves epochs kept: `tidewater collection list` shows the number",
        "exit status 5",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn load_help_explains_create_stdin_and_delimiter() {
    let help = stdout(&tidewater(&["load", "--help"]));
    for part in [
        "planes.csv --create --primary-key tailnum --null NA",
        "tidewater load trips - --delimiter tab",
        "--columns",
        "--time-column",
        "append-only",
        "no table is created",
    ] {
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains(part), "{part}: {help}");
    }
}

#[test]
fn unreachable_cluster_exits_with_5() {
    let first = unused_address();
    let second = unused_address();
    let addresses = format!("{first},{second}");
    for arguments in [
        &["cluster", "status"][..],
        &["table", "list"],
        &["scan", "t", "--count"],
        &["scan", "t", "--sum", "a"],
        &["get", "t", "k"],
        &["event", "list"],
        &["event", "tail"],
        &["hold", "list"],
        &["hold", "acquire", "h", "t"],
        &["collection", "list"],
        &["collection", "capabilities", "t", "--add", "1"],
        &["export", "list"],
        &["export", "prepare", "t"],
        &["export", "create", "e", "--table", "t", "--to", "file:///x"],
        &["bench", "holds"],
    ] {
        let mut all = arguments.to_vec();
        all.extend(["--meta", &addresses, "--timeout", "3s"]);
        let output = tidewater(&all);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {message}");
        assert!(message.contains(&first) && message.contains(&second), "{message}");
    }
}

#[test]
fn event_types_are_listed_without_a_cluster() {
    let output = tidewater(&["event", "types"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("node_down (high): "), "{}", stdout(&output));
    let output = tidewater(&["event", "types", "--output", "json"]);
    let types: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let types = types.as_array().unwrap();
    assert!(types.iter().any(|known| known["type"] == "events_dropped"));
    assert!(types.iter().all(|known| known["columns"].is_array()));
}

#[test]
fn unusable_meta_address_is_a_usage_error() {
    for address in ["no address", "127.0.0.1", "http://127.0.0.1:7400", "127.0.0.1:7400,"] {
        let output = tidewater(&["table", "list", "--meta", address]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{address}: {message}");
        assert!(message.contains("--meta") && message.contains("use host:port"), "{message}");
    }
}

#[test]
fn bad_file_fails_before_connecting_to_the_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let empty = path("empty.csv", b"");
    let cut = path("cut.zip", b"PK\x03\x04 and no more");
    let missing = directory.path().join("missing.csv").display().to_string();
    for (file, status, part) in [
        (missing, 3, "no such file"),
        (empty, 1, "empty"),
        (cut, 1, "not a complete zip archive"),
        (path("gone.csv.gz", b"\x1f\x8b\x08"), 1, "damaged or truncated"),
        (directory.path().display().to_string(), 1, "directory"),
    ] {
        let output = tidewater(&["load", "t", &file, "--meta", &unused_address()]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{message}");
        assert!(message.contains(&file) && message.contains(part), "{message}");
    }
}

#[test]
fn bad_stdin_fails_before_connecting_to_the_cluster() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, part) in [
        (&b""[..], "stdin: the file is empty"),
        (b"PK\x03\x04 and no more", "stdin: not a complete zip archive"),
        (b"\x1f\x8b\x08", "stdin: the compressed data is damaged or truncated"),
    ] {
        let path = directory.path().join("stdin");
        std::fs::write(&path, bytes).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tidewater"))
            .args(["load", "t", "-", "--meta", &unused_address()])
            .stdin(std::fs::File::open(&path).unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn server_rejects_exposed_and_used_addresses() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("d").display().to_string();
    let exposed = tidewater(&["standalone", "--listen", "0.0.0.0:0", "--data-dir", &data_dir]);
    assert_eq!(exposed.status.code(), Some(2), "{}", stderr(&exposed));
    assert!(stderr(&exposed).contains("--insecure"), "{}", stderr(&exposed));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tidewater(&["standalone", "--listen", &address, "--data-dir", &data_dir]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
    assert!(!std::path::Path::new(&data_dir).exists(), "the data directory must not be created");
}

#[test]
fn flags_override_environment_and_environment_overrides_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    std::fs::write(
        &path,
        "[data]\nlisten = \"127.0.0.1:1\"\ndata-dir = \"file\"\nobject-store = \"file:///o\"\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidewater"))
        .args(["config", "show", "data", "--output", "json", "--config-file"])
        .arg(&path)
        .args(["--", "--listen", "127.0.0.1:3"])
        .env("TIDEWATER_LISTEN", "127.0.0.1:2")
        .env("TIDEWATER_DATA_DIR", "environment")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let settings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let value = |name: &str| {
        let settings = settings.as_array().unwrap();
        let found = settings.iter().find(|setting| setting["name"] == name).unwrap();
        (found["value"].clone(), found["source"].clone())
    };
    assert_eq!(value("listen"), ("127.0.0.1:3".into(), "option".into()));
    assert_eq!(value("data-dir"), ("environment".into(), "environment".into()));
    assert_eq!(value("object-store"), ("file:///o".into(), "file".into()));
    assert_eq!(value("memory-limit"), ("1GiB".into(), "default".into()));
}

#[test]
fn invalid_settings_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    std::fs::write(&path, "[data]\nlistne = 1\n").unwrap();
    let path = path.display().to_string();
    let output = tidewater(&["--config-file", &path, "table", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("listne"), "{}", stderr(&output));
    let output = tidewater(&["--config-file", "/nowhere.toml", "table", "list"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

#[test]
fn bench_holds_help_names_tables_and_calls() {
    let help = stdout(&tidewater(&["bench", "holds", "--help"]));
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    for part in [
        "--tables <N>",
        "--holds <N>",
        "--clients <N>",
        "--requests <N>",
        "--cleanup <BOOL>",
        "hold_bench_0",
        "the acquisition, the downgrade and the release",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn completions_cover_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tidewater(&["completions", shell]);
        assert!(output.status.success());
        assert!(stdout(&output).contains("tidewater"), "{shell}");
    }
}
