//! `docs/metrics.md`, which is generated from the tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::tables::{MetricTable, TABLES};

/// Set to 1, the test writes the page.
const WRITE: &str = "TIDEWATER_WRITE_DOCS";

const HEAD: &str = "\
# Metrics

<!-- Generated: TIDEWATER_WRITE_DOCS=1 cargo nextest run -p tidewater-cli metrics_page_is_current -->

`/metrics` on every node has the metrics of its role in the Prometheus text format. A standalone process has all of them. A metric
appears with its first value. Counters start from 0 with the process. A histogram is exported as a summary: quantiles, sum and count.
";

/// Labels with their values.
const LABELS: [(&str, &str); 8] = [
    ("call", "the refused call, such as `open_region`"),
    ("event", "the event that the hook was called for, such as `manifest_updated`"),
    ("group", "the id of the Raft group"),
    ("hook", "the name of the hook"),
    ("kind", "the kind of the problem, see [operations.md](operations.md#problems)"),
    ("operation", "the slow operation: `write`, `get`, `scan`, `flush` or `compaction`"),
    (
        "outcome",
        "on a data node `committed`, `committed_here` (locally), `discarded`, `cancelled`, `quarantined`, `untaken` (no compactor accepted \
         the job and it may not run locally), `failed` or `left` (the term ended); on a compactor `committed`, `inputs_gone`, \
         `below_floor`, `cancelled`, `unknown` or `failed`",
    ),
    (
        "reason",
        "the error reason in lower case, without `REASON_`, from `proto/tidewater/v1/error.proto`; of Raft messages the broken rule: \
         `source_differs`, `names_receiver`, `vote_kind`, `term_jump`, `not_member`, `malformed`, `command` (unknown kind), \
         `committed` (contradicts committed entries) or `snapshot` (damaged)",
    ),
];

fn page() -> String {
    let mut page = HEAD.to_owned();
    for table in &TABLES {
        write_table(&mut page, table).unwrap();
    }
    page.push_str("\n## Labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in LABELS {
        writeln!(page, "| `{label}` | {values} |").unwrap();
    }
    page
}

fn write_table(page: &mut String, table: &MetricTable) -> std::fmt::Result {
    writeln!(page, "\n## {}\n", table.title)?;
    page.push_str("| name | kind | unit | labels | description |\n|---|---|---|---|---|\n");
    for metric in table.metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            metric.unit.as_str(),
            labels.join(", "),
            metric.description
        )?;
    }
    Ok(())
}

/// Returns the lines that differ, without equal lines at the start and the end.
fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let ends = old[start..].iter().rev().zip(new[start..].iter().rev());
    let end = ends.take_while(|(a, b)| a == b).count();
    let removed = old[start..old.len() - end].iter().map(|line| format!("-{line}\n"));
    let added = new[start..new.len() - end].iter().map(|line| format!("+{line}\n"));
    format!("line {}:\n{}", start + 1, removed.chain(added).collect::<String>())
}

#[test]
fn metrics_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = page();
    if std::env::var(WRITE).is_ok_and(|value| value == "1") {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/metrics.md is not current; {WRITE}=1 writes it\n{}",
        diff(&stored, &page)
    );
}

#[test]
fn every_label_is_described() {
    let used: BTreeSet<&str> = TABLES
        .iter()
        .flat_map(|table| table.metrics)
        .flat_map(|metric| metric.labels.iter().copied())
        .collect();
    let described: BTreeSet<&str> = LABELS.iter().map(|(label, _)| *label).collect();
    assert_eq!(used, described);
}

#[test]
fn descriptions_are_single_sentences() {
    for metric in TABLES.iter().flat_map(|table| table.metrics) {
        let text = metric.description;
        let capital = text.starts_with(|first: char| first.is_ascii_uppercase());
        assert!(capital && text.find('.') == Some(text.len() - 1), "{}: {text:?}", metric.name);
    }
}

#[test]
fn diff_shows_changed_lines_only() {
    assert_eq!(diff("a\nb\nc\n", "a\nx\ny\nc\n"), "line 2:\n-b\n+x\n+y\n");
    assert_eq!(diff("a\na\n", "a\n"), "line 2:\n-a\n");
}
