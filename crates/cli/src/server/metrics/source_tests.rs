//! Comparison of the tables with the calls that emit metrics, in all sources of the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidewater_common::metric::Metric;

use super::tables::TABLES;

/// Macros that emit metrics; a macro is named like the kind of its metrics.
const MACROS: [&str; 3] = ["counter", "gauge", "histogram"];

/// A call that emits a metric.
#[derive(Debug, PartialEq, Eq)]
struct MeterCall {
    kind: &'static str,
    /// `None`: the name is not a literal.
    name: Option<String>,
    /// In alphabetical order.
    labels: Vec<String>,
}

/// Returns the calls in a source file.
fn calls(source: &str) -> Vec<MeterCall> {
    let code: Vec<&str> =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for kind in MACROS {
        let opening = format!("{kind}!(");
        for (at, _) in code.match_indices(&opening) {
            // `describe_counter!` is another macro.
            if !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                found.push(parse_call(kind, &code[at + opening.len()..]));
            }
        }
    }
    found
}

/// Parses the arguments of a call: a name, and `"label" => value` for each label.
fn parse_call(kind: &'static str, rest: &str) -> MeterCall {
    let mut depth = 1;
    let close = |byte: u8| {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        depth == 0
    };
    let arguments = &rest[..rest.bytes().position(close).unwrap_or(rest.len())];
    let literal =
        |text: &str| text.trim().strip_prefix('"')?.strip_suffix('"').map(ToOwned::to_owned);
    let name = arguments.split(',').next().and_then(literal);
    let labels = arguments.split("=>").map(|part| part.rsplit(',').next().and_then(literal));
    let count = arguments.matches("=>").count();
    let mut labels: Vec<String> = labels.take(count).flatten().collect();
    labels.sort();
    MeterCall { kind, name, labels }
}

/// Returns the directories of the workspace's crates. Other directories at its root may hold anything,
/// such as worktrees with other versions of the sources.
fn members(root: &Path) -> Vec<PathBuf> {
    let manifest = config::File::from(root.join("Cargo.toml"));
    let manifest = config::Config::builder().add_source(manifest).build().unwrap();
    let members: Vec<String> = manifest.get("workspace.members").unwrap();
    members.iter().map(|member| root.join(member)).collect()
}

/// Returns all Rust files of the workspace, as paths from its root with their text.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut found = BTreeMap::new();
    let mut directories = members(&root);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(&root).unwrap().display().to_string();
                found.insert(relative, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// Returns the contradictions between calls, by source file, and the tables.
fn problems<'a>(sources: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut rows: BTreeMap<&str, (&Metric, &str, bool)> = BTreeMap::new();
    let mut problems = Vec::new();
    for table in &TABLES {
        for metric in table.metrics {
            if rows.insert(metric.name, (metric, table.source, false)).is_some() {
                problems.push(format!("{} has two rows", metric.name));
            }
        }
    }
    for (path, source) in sources {
        for call in calls(source) {
            let Some(name) = &call.name else {
                problems.push(format!("{path}: the name of a {} is not a literal", call.kind));
                continue;
            };
            let Some((metric, home, is_used)) = rows.get_mut(name.as_str()) else {
                problems.push(format!("{path}: {name} has no row"));
                continue;
            };
            *is_used = true;
            if path != *home {
                problems.push(format!("{path}: {name} is emitted outside {home}"));
            }
            if call.kind != metric.kind.as_str() || call.labels != metric.labels {
                problems.push(format!("{path}: {name} differs from its row: {call:?}"));
            }
        }
    }
    let unused = rows.values().filter(|(_, _, is_used)| !is_used);
    problems.extend(unused.map(|(metric, home, _)| format!("{home}: {} has no use", metric.name)));
    problems
}

#[test]
fn every_emitted_metric_has_row() {
    let sources = sources();
    let found = problems(sources.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn contradictions_with_tables_are_found() {
    let home = "compactor-node/src/meters.rs";
    let emitting = |path, kind: &str, arguments: &str| {
        let source = format!("fn event() {{\n    metrics::{kind}!({arguments}).set(1);\n}}\n");
        problems([(path, source.as_str())].into_iter()).join("\n")
    };
    let slots = r#""tidewater_compactor_slots""#;
    assert!(!emitting(home, "gauge", slots).contains("tidewater_compactor_slots"));
    for (path, kind, arguments, problem) in [
        ("a.rs", "gauge", slots, "a.rs: tidewater_compactor_slots is emitted outside"),
        (home, "gauge", r#""tidewater_none""#, "tidewater_none has no row"),
        (home, "gauge", "name", "the name of a gauge is not a literal"),
        (home, "counter", slots, "tidewater_compactor_slots differs from its row"),
        (home, "gauge", &format!("{slots}, \"a\" => b"), "tidewater_compactor_slots differs"),
        (home, "gauge", slots, "meters.rs: tidewater_compactor_draining has no use"),
    ] {
        let found = emitting(path, kind, arguments);
        assert!(found.contains(problem), "{kind}, {arguments}: {found}");
    }
}

#[test]
fn calls_are_parsed_over_several_lines() {
    // With another character for the exclamation mark: this file is a source, too.
    let source = "// gauge%(\"a\")\ndescribe_gauge%(\"b\", x);\n\
        counter%(\n    \"c\",\n    \"y\" => f(z), \"x\" => w\n)";
    let labels = vec!["x".to_owned(), "y".to_owned()];
    let call = MeterCall { kind: "counter", name: Some("c".to_owned()), labels };
    assert_eq!(calls(&source.replace('%', "!")), [call]);
}
