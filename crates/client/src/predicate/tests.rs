use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::read_arguments::{
    MAX_PREDICATES, MAX_VALUE_BYTES, MAX_VALUES, ReadArgumentError,
};
use tidewater_common::schema::{Column, TableSchema};
use tidewater_proto::v1::{CompareOp, Predicate};

use super::{PredicateError, PredicateProblem, parse};

fn schema() -> TableSchema {
    let columns = [
        ("origin", "utf8"),
        ("distance", "int64"),
        ("small", "int8"),
        ("delay", "float64"),
        ("cancelled", "bool"),
        ("day", "date32"),
        ("at", "timestamp(ms)"),
        ("price", "decimal128(10, 2)"),
        ("raw", "binary"),
        ("and", "int32"),
        ("two words", "int32"),
    ];
    let columns: Vec<Column> = columns
        .iter()
        .zip(1..)
        .map(|((name, data_type), id)| Column {
            id: ColumnId(id),
            name: (*name).to_owned(),
            data_type: data_type.parse().unwrap(),
            nullable: id > 2,
            default: None,
        })
        .collect();
    let next = ColumnId(columns.len() as u32 + 1);
    TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, next).unwrap()
}

fn term(column_id: u32, op: CompareOp, values: &[&str]) -> Predicate {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Predicate { column_id, op: op.into(), values }
}

#[test]
fn valid_conditions_are_parsed() {
    use CompareOp::{Eq, Ge, Gt, In, IsNotNull, IsNull, Le, Lt, Ne};
    let table: &[(&str, Vec<Predicate>)] = &[
        ("", vec![]),
        ("  ", vec![]),
        (
            r#"distance > 1000 and origin = "JFK""#,
            vec![term(2, Gt, &["1000"]), term(1, Eq, &["JFK"])],
        ),
        ("distance>=-5", vec![term(2, Ge, &["-5"])]),
        ("distance<5 AND distance<=6", vec![term(2, Lt, &["5"]), term(2, Le, &["6"])]),
        ("distance <> 5 and distance != 6", vec![term(2, Ne, &["5"]), term(2, Ne, &["6"])]),
        ("distance == 5", vec![term(2, Eq, &["5"])]),
        ("origin in ('JFK', \"LGA\")", vec![term(1, In, &["JFK", "LGA"])]),
        ("distance in (1)", vec![term(2, In, &["1"])]),
        (
            "delay is null and delay Is Not NULL",
            vec![term(4, IsNull, &[]), term(4, IsNotNull, &[])],
        ),
        ("delay > 1.5e3", vec![term(4, Gt, &["1.5e3"])]),
        ("cancelled = true", vec![term(5, Eq, &["true"])]),
        ("day >= 2013-01-31", vec![term(6, Ge, &["2013-01-31"])]),
        ("at < '2013-01-31 10:00:00'", vec![term(7, Lt, &["2013-01-31 10:00:00"])]),
        ("at < 2013-01-31T10:00:00", vec![term(7, Lt, &["2013-01-31T10:00:00"])]),
        ("price = 12.50", vec![term(8, Eq, &["12.50"])]),
        ("raw = 00ff", vec![term(9, Eq, &["00ff"])]),
        ("`and` = 1 and `two words` = 2", vec![term(10, Eq, &["1"]), term(11, Eq, &["2"])]),
        ("origin = 'it''s'", vec![term(1, Eq, &["it's"])]),
        ("origin = ''", vec![term(1, Eq, &[""])]),
        ("origin = 'null'", vec![term(1, Eq, &["null"])]),
        ("origin = 'grün' and distance = 1", vec![term(1, Eq, &["grün"]), term(2, Eq, &["1"])]),
    ];
    for (text, expected) in table {
        assert_eq!(parse(&schema(), text).as_ref(), Ok(expected), "{text}");
    }
}

#[test]
fn invalid_conditions_report_position_and_problem() {
    let table: &[(&str, usize, &str)] = &[
        ("distance", 9, "expected a comparison, `in` or `is`, found the end"),
        ("distance >", 11, "expected a value, found the end"),
        ("distance > and", 12, "\"and\" is not a valid int64"),
        ("distance > 5 origin = 'x'", 14, "expected `and`, found `origin`"),
        ("distance > 5 and", 17, "expected a column, found the end"),
        ("distance > 5 or distance < 2", 14, "only `and` can join conditions"),
        ("not distance = 5", 1, "only `and` can join conditions"),
        ("(distance = 5)", 1, "only `and` can join conditions"),
        ("distanc > 5", 1, "there is no column \"distanc\"; the columns are origin, distance,"),
        ("origin = JFK", 10, "expected text in quotes, found JFK without quotes"),
        ("distance = 1.5", 12, "\"1.5\" is not a valid int64, the type of column \"distance\": "),
        ("small = 300", 9, "\"300\" is not a valid int8"),
        ("delay = fast", 9, "\"fast\" is not a valid float64"),
        ("day = 2013-02-31", 7, "\"2013-02-31\" is not a valid date32"),
        ("raw = 0", 7, "\"0\" is not a valid binary"),
        ("raw = 'xy'", 7, "\"xy\" is not a valid binary"),
        ("distance = null", 12, "write `is null` or `is not null`"),
        ("distance is 5", 13, "expected `null` or `not null`, found `5`"),
        ("distance in 5", 13, "expected `(`, found `5`"),
        ("distance in ()", 14, "expected a value, found `)`"),
        ("distance in (1 2)", 16, "expected `,` or `)`, found `2`"),
        ("distance in (1, 2", 18, "expected `,` or `)`, found the end"),
        ("origin = 'JFK", 10, "never closed"),
        ("grün = 'x' and ; = 5", 16, "unexpected character ';'"),
        ("distance = 5 & small = 1", 14, "unexpected character '&'"),
    ];
    for (text, position, part) in table {
        let error = parse(&schema(), text).unwrap_err();
        assert_eq!(error.position, *position, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn conditions_beyond_the_limits_of_a_read_are_rejected() {
    let list = |values: usize| {
        let values: Vec<String> = (0..values).map(|value| value.to_string()).collect();
        format!("distance in ({})", values.join(", "))
    };
    assert_eq!(parse(&schema(), &list(MAX_VALUES)).unwrap()[0].values.len(), MAX_VALUES);
    let error = parse(&schema(), &list(MAX_VALUES + 1)).unwrap_err();
    assert_eq!(error.problem, PredicateProblem::Limit(ReadArgumentError::Values));
    assert!(error.to_string().contains("split the list"), "{error}");
    let long = format!("origin = '{}'", "x".repeat(MAX_VALUE_BYTES + 1));
    let error = parse(&schema(), &long).unwrap_err();
    assert_eq!(error.problem, PredicateProblem::Limit(ReadArgumentError::ValueBytes));
    let many = vec!["distance is null"; MAX_PREDICATES + 1].join(" and ");
    let error = parse(&schema(), &many).unwrap_err();
    assert_eq!(error.problem, PredicateProblem::Limit(ReadArgumentError::Predicates));
}

#[test]
fn predicate_error_message_contains_the_position() {
    let error = PredicateError { position: 7, problem: PredicateProblem::OpenQuote };
    assert!(error.to_string().contains("at character 7"), "{error}");
}

proptest::proptest! {
    #[test]
    fn predicate_parser_never_panics(text in "[ -~äöü]{0,40}") {
        let _ = parse(&schema(), &text);
    }

    #[test]
    fn quoted_text_value_round_trips(value in ".{0,20}") {
        let text = format!("origin = '{}'", value.replace('\'', "''"));
        let parsed = parse(&schema(), &text).unwrap();
        proptest::prop_assert_eq!(&parsed[0].values, &[value]);
    }
}
