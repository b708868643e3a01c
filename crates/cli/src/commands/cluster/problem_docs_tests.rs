//! The table of problem kinds in `docs/operations.md`, which is generated.

use std::fmt::Write as _;
use std::path::Path;

use tidewater_common::problem_kind::{facts, kinds, name};

/// Set to 1, the test writes the table.
const WRITE: &str = "TIDEWATER_WRITE_DOCS";
const BEGIN: &str = "<!-- Generated: TIDEWATER_WRITE_DOCS=1 cargo nextest run -p tidewater-cli problem_table_is_current -->\n";
const END: &str = "<!-- End of the generated table -->\n";

fn table() -> String {
    let mut table = "| kind | meaning | remedy |\n|---|---|---|\n".to_owned();
    for kind in kinds() {
        let facts = facts(kind);
        writeln!(table, "| `{}` | {} | {} |", name(kind), facts.meaning, facts.remedy).unwrap();
    }
    table
}

#[test]
fn problem_table_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (stored, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var(WRITE).is_ok_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        stored, table,
        "the table in docs/operations.md is not current; {WRITE}=1 writes it"
    );
}
