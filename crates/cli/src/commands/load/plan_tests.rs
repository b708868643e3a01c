use std::collections::HashSet;
use std::sync::Arc;

use super::*;
use crate::load::infer::InferOptions;
use crate::load::infer::scan::infer_all;
use crate::text::columns::ColumnSpecs;
use tidewater_readers::delimiter::Delimiter;
use tidewater_readers::input::inspect;

const TEXT: &str = "price,id,at,name\n1.5,7,2013-01-01T10:00:00Z,a\n,8,2013-01-01T10:00:00Z,\n";

fn wanted(key: &[&str]) -> Wanted {
    let primary_key = key.iter().map(|name| (*name).to_owned()).collect();
    Wanted { name: "t".to_owned(), primary_key, ..Wanted::default() }
}

fn plan_text(wanted: &Wanted, text: &str) -> Result<Plan, PlanError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    std::fs::write(&path, text).unwrap();
    let given: HashSet<String> = wanted.given.iter().map(|column| column.name.clone()).collect();
    let options = InferOptions {
        nulls: Arc::default(),
        delimiter: Delimiter::default(),
        given: Arc::new(given),
        skip_bad: 0,
    };
    let inputs = inspect(&path).unwrap();
    plan(wanted, &infer_all(&inputs, &options, &Arc::default(), &mut |_| {})?)
}

fn given(text: &str) -> Vec<NewColumn> {
    text.parse::<ColumnSpecs>().unwrap().0
}

#[test]
fn key_columns_are_not_null_and_others_nullable() {
    let plan = plan_text(&wanted(&["at", "id"]), TEXT).unwrap();
    let columns: Vec<(&str, &str, bool)> = plan
        .table
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.data_type.as_str(), column.nullable))
        .collect();
    assert_eq!(
        columns,
        [
            ("price", "float64", true),
            ("id", "int64", false),
            ("at", "timestamp(s, UTC)", false),
            ("name", "utf8", true),
        ]
    );
    assert_eq!(plan.table.write_mode, WriteMode::Upsert);
    assert_eq!(
        plan.command(),
        "tidewater table create t --columns 'price float64, id int64, at timestamp(s, UTC), name \
         utf8' --primary-key at,id"
    );
    let text = plan.text();
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["COLUMN", "TYPE", "NULL", "KEY"]);
    assert_eq!(lines[1], ["price", "float64", "null"]);
    assert_eq!(lines[2], ["id", "int64", "not", "null", "2"]);
}

#[test]
fn table_without_key_is_append_only_and_sorted() {
    for (time, text, sorted_by) in [
        (None, TEXT, "id"),
        (Some("at"), TEXT, "at"),
        (Some("at"), "id,at\n1,2013-01-01\n2,\n", "id"),
    ] {
        let time_column = time.map(str::to_owned);
        let plan = plan_text(&Wanted { time_column, ..wanted(&[]) }, text).unwrap();
        assert_eq!(plan.table.write_mode, WriteMode::AppendOnly);
        assert_eq!(plan.table.primary_key, [sorted_by]);
        assert!(plan.command().ends_with("--append-only"), "{}", plan.command());
    }
    let error = plan_text(&wanted(&[]), "a,b\n1.5,\n2,1\n").unwrap_err();
    assert!(matches!(error, PlanError::NoSortColumn), "{error}");
}

#[test]
fn given_columns_replace_inferred_types() {
    let given = given("id int32, name utf8 not null default 'it''s', price decimal128(10, 2)");
    let plan = plan_text(&Wanted { given, ..wanted(&["id"]) }, TEXT).unwrap();
    assert_eq!(
        plan.command(),
        "tidewater table create t --columns 'price decimal128(10, 2), id int32, at timestamp(s, \
         UTC), name utf8 not null default '\\''it'\\'''\\''s'\\''' --primary-key id"
    );
}

#[test]
fn option_with_unknown_column_is_rejected() {
    let time_column = Some("x".to_owned());
    for wanted in [
        wanted(&["id", "x"]),
        Wanted { time_column, ..wanted(&["id"]) },
        Wanted { given: given("x int8"), ..wanted(&["id"]) },
    ] {
        let error = plan_text(&wanted, TEXT).unwrap_err();
        assert!(matches!(error, PlanError::NoColumn { .. }), "{error}");
        assert!(error.to_string().contains("`x`") && error.to_string().contains("price, id"));
    }
}

#[test]
fn missing_key_value_is_rejected_with_its_line() {
    let error = plan_text(&wanted(&["id", "name"]), TEXT).unwrap_err();
    assert!(matches!(error, PlanError::NullKey { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("line 3, column `name`"), "{message}");
    // A bad row, which the check of the rows skips.
    let skipping = Wanted { skip_bad: 1, ..wanted(&["id", "name"]) };
    assert!(plan_text(&skipping, TEXT).is_ok());
}

#[test]
fn invalid_definition_is_rejected_before_creation() {
    let time_column = Some("name".to_owned());
    for (wanted, text, part) in [
        (wanted(&["price"]), "price\n1.5\n", "\"price\" of type float64"),
        (wanted(&["id", "id"]), TEXT, "named twice"),
        (Wanted { time_column, ..wanted(&["id"]) }, TEXT, "time column"),
        (wanted(&["id"]), "id,\n1,2\n", "column name \"\" is empty"),
        (Wanted { name: String::new(), ..wanted(&["id"]) }, TEXT, "table name \"\" is empty"),
    ] {
        let error = plan_text(&wanted, text).unwrap_err();
        assert!(matches!(error, PlanError::Schema(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn printed_definition_is_parsed_to_the_same_columns() {
    for name in ["id", "a b", "it's", "say \"hi\"", "a,b", "x(y)", "größe"] {
        let column = NewColumn::new(name, "timestamp(ms, UTC)", false);
        let parsed: ColumnSpecs = definition(&column, &[]).parse().unwrap();
        assert_eq!(parsed.0, [column], "{name}");
    }
    assert_eq!(shell_word("it's"), "'it'\\''s'");
    assert_eq!(shell_word("a,b"), "a,b");
    assert_eq!(shell_word("-x"), "'-x'");
}
