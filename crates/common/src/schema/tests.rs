use arrow::datatypes::TimeUnit;
use prost::Message;
use tidewater_proto::v1;

use super::*;

fn column(id: u32, name: &str, data_type: ColumnType, nullable: bool) -> Column {
    Column { id: ColumnId(id), name: name.to_owned(), data_type, nullable, default: None }
}

fn columns() -> Vec<Column> {
    vec![
        column(1, "host", ColumnType::Utf8, false),
        column(2, "at", ColumnType::Timestamp(TimeUnit::Millisecond, None), false),
        column(3, "load", ColumnType::Float64, true),
    ]
}

fn schema(
    columns: Vec<Column>,
    key: &[u32],
    time: Option<u32>,
) -> Result<TableSchema, SchemaError> {
    TableSchema::new(
        SchemaVersion(1),
        columns,
        key.iter().copied().map(ColumnId).collect(),
        time.map(ColumnId),
        ColumnId(4),
    )
}

#[test]
fn table_definition_round_trips_over_the_wire() {
    let table = schema(columns(), &[2, 1], Some(2)).unwrap();
    let wire = v1::TableSchema::from(&table);
    assert_eq!(TableSchema::try_from(&wire).unwrap(), table);
    assert_eq!(table.key_indices(), [1, 0]);
    assert_eq!(table.key_arrow().field(0).name(), "at");
    assert_eq!(table.arrow().field(2).metadata()[FIELD_ID_KEY], "3");

    let options = TableOptions {
        write_mode: WriteMode::AppendOnly,
        hash: Some(HashDistribution { columns: vec![ColumnId(1)], vnode_count: 16 }),
        ttl_ms: Some(5),
        refreshable: false,
        compaction_window: Some(Duration::from_secs(60)),
        holds_events: true,
        explicit_since: true,
        dropped: true,
    };
    options.validate(&table).unwrap();
    assert_eq!(TableOptions::try_from(&v1::TableOptions::from(&options)).unwrap(), options);
}

// Frozen: logs, manifests and rows of the catalog have these bytes.
#[test]
fn bytes_of_explicit_since_are_frozen() {
    for (explicit_since, expected) in [(false, &[8, 1][..]), (true, &[8, 1, 0x38, 1][..])] {
        let options = TableOptions { explicit_since, ..TableOptions::upsert() };
        assert_eq!(v1::TableOptions::from(&options).encode_to_vec(), expected);
    }
}

#[test]
fn bytes_of_dropped_are_frozen() {
    let options = TableOptions { dropped: true, ..TableOptions::upsert() };
    assert_eq!(v1::TableOptions::from(&options).encode_to_vec(), [8, 1, 0x40, 1]);
}

#[test]
fn every_invalid_definition_has_its_error() {
    let with = |index: usize, change: fn(&mut Column)| {
        let mut columns = columns();
        change(&mut columns[index]);
        columns
    };
    let error = |columns, key: &[u32], time| schema(columns, key, time).unwrap_err();

    assert_eq!(error(vec![], &[1], None), SchemaError::NoColumns);
    assert_eq!(error(columns(), &[], None), SchemaError::NoPrimaryKey);
    assert!(matches!(error(columns(), &[9], None), SchemaError::KeyColumnMissing(_)));
    assert_eq!(error(columns(), &[1, 1], None), SchemaError::KeyColumnTwice("host".into()));
    assert!(matches!(error(columns(), &[3], None), SchemaError::KeyColumnNullable(_)));
    assert!(matches!(
        error(with(2, |c| c.nullable = false), &[3], None),
        SchemaError::KeyColumnType { .. }
    ));
    assert!(matches!(error(columns(), &[1], Some(3)), SchemaError::BadTimeColumn(_)));
    assert!(matches!(error(columns(), &[1], Some(7)), SchemaError::BadTimeColumn(_)));
    assert_eq!(
        error(with(1, |c| c.name = "host".into()), &[1], None),
        SchemaError::DuplicateColumn("host".into())
    );
    for id in [0, 1, 4] {
        let mut columns = columns();
        columns[1].id = ColumnId(id);
        assert!(matches!(error(columns, &[1], None), SchemaError::BadColumnId { .. }), "{id}");
    }
    for name in ["", "_tw_seq", "a\nb"] {
        let mut columns = columns();
        columns[0].name = name.into();
        assert!(matches!(error(columns, &[1], None), SchemaError::BadName { .. }), "{name:?}");
    }
    let many =
        (1..=1_025).map(|id| column(id, &format!("c{id}"), ColumnType::Bool, true)).collect();
    assert_eq!(error(many, &[1], None), SchemaError::TooManyColumns(1_025));
    let zero = TableSchema::new(SchemaVersion(0), columns(), vec![ColumnId(1)], None, ColumnId(4));
    assert_eq!(zero.unwrap_err(), SchemaError::BadVersion);
}

#[test]
fn table_options_are_validated_against_columns() {
    let table = schema(columns(), &[1], None).unwrap();
    let hash = |columns: Vec<u32>, vnode_count| TableOptions {
        hash: Some(HashDistribution {
            columns: columns.into_iter().map(ColumnId).collect(),
            vnode_count,
        }),
        ..TableOptions::upsert()
    };
    hash(vec![1], 1).validate(&table).unwrap();
    for bad in [
        hash(vec![], 4),
        hash(vec![2], 4),
        hash(vec![1, 1], 4),
        hash(vec![1], 0),
        hash(vec![1], 32_769),
    ] {
        assert!(matches!(bad.validate(&table), Err(SchemaError::BadDistribution(_))), "{bad:?}");
    }
    let ttl = TableOptions { ttl_ms: Some(1), ..TableOptions::upsert() };
    assert!(matches!(ttl.validate(&table), Err(SchemaError::BadTimeColumn(_))));
}

#[test]
fn new_compaction_windows_last_at_least_an_hour() {
    let seconds = Duration::from_secs;
    for (window, is_valid) in [
        (MIN_NEW_COMPACTION_WINDOW, true),
        (seconds(86_400), true),
        (Duration::ZERO, false),
        (MIN_COMPACTION_WINDOW, false),
        (seconds(3_599), false),
        (Duration::from_millis(3_600_001), false),
    ] {
        let expected =
            if is_valid { Ok(()) } else { Err(SchemaError::BadCompactionWindow(window)) };
        assert_eq!(TableOptions::check_new_window(window), expected);
    }
    let error = SchemaError::BadCompactionWindow(seconds(60)).to_string();
    assert_eq!(error, "compaction window 60s is invalid: use whole seconds, at least 1h");
}

#[test]
fn compaction_windows_out_of_range_are_refused() {
    let windowed = |window, write_mode| TableOptions {
        write_mode,
        compaction_window: Some(window),
        ..TableOptions::upsert()
    };
    let timed = schema(columns(), &[1, 2], Some(2)).unwrap();
    let day = Duration::from_secs(86_400);
    for window in [MIN_COMPACTION_WINDOW, Duration::from_secs(61), day] {
        assert_eq!(windowed(window, WriteMode::Upsert).validate(&timed), Ok(()), "{window:?}");
    }
    for window in [Duration::ZERO, Duration::from_secs(59), Duration::from_millis(60_001)] {
        let refused = windowed(window, WriteMode::Upsert).validate(&timed);
        assert_eq!(refused, Err(SchemaError::BadCompactionWindow(window)));
    }
    let untimed = schema(columns(), &[1], None).unwrap();
    let refused = windowed(day, WriteMode::AppendOnly).validate(&untimed);
    assert!(matches!(refused, Err(SchemaError::BadTimeColumn(_))), "{refused:?}");
    let outside = schema(columns(), &[1], Some(2)).unwrap();
    let refused = windowed(day, WriteMode::Upsert).validate(&outside);
    assert_eq!(refused, Err(SchemaError::WindowTimeNotInKey));
    assert_eq!(windowed(day, WriteMode::AppendOnly).validate(&outside), Ok(()));
}

#[test]
fn refreshable_table_only_mirrors_its_source() {
    let table = schema(columns(), &[1], None).unwrap();
    let mirror = TableOptions { refreshable: true, ..TableOptions::upsert() };
    assert_eq!(mirror.validate(&table), Ok(()));
    let held = TableOptions { explicit_since: true, dropped: true, ..mirror.clone() };
    assert_eq!(held.validate(&table), Ok(()));
    for bad in [
        TableOptions { holds_events: true, ..mirror.clone() },
        TableOptions { write_mode: WriteMode::AppendOnly, ..mirror },
    ] {
        assert_eq!(bad.validate(&table), Err(SchemaError::BadRefreshable), "{bad:?}");
    }
}

#[test]
fn new_table_names_are_identifiers() {
    for name in ["t", "flights", "Flüge_2", "_t", "2013", "a-b.c", "日本"] {
        assert_eq!(check_table_name(name), Ok(()), "{name}");
    }
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "-x",
        ".x",
        "a b",
        "a\\b",
        "a\u{1b}[2J",
        "_tw_x",
        "a,b",
        "a\u{202e}",
    ] {
        assert!(matches!(check_table_name(name), Err(SchemaError::BadName { .. })), "{name:?}");
    }
    let long = check_table_name(&"x".repeat(10_000)).unwrap_err().to_string();
    assert!(long.len() < 250, "{long}");
}
