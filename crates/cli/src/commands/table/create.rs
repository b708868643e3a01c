//! `table create NAME`

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::{NewColumn, NewTable};
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::columns::ColumnSpecs;
use crate::text::distribution::Distribution;
use crate::text::time_span::TimeSpan;

/// Options of `table create`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater table create flights --columns 'origin utf8, flight \
                        int64, time_hour timestamp(ms, UTC), distance int64' --primary-key \
                        time_hour,origin,flight --distribute 'hash(origin)' --regions \
                        3\n\nColumns of the primary key are not null. Other columns are nullable \
                        unless `not null` follows their type."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Names and types: 'origin utf8, flight int64 not null, price decimal128(10, 2)'
    #[arg(long, value_name = "COLUMNS")]
    columns: ColumnSpecs,

    /// Columns of the primary key, in order
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', required = true)]
    primary_key: Vec<String>,

    /// Column with the time of a row, for --ttl and --compaction-window
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,

    /// Distribution of rows by key range or by a hash of key columns: range, 'hash(origin)'
    #[arg(long, value_name = "HOW", default_value = "range")]
    distribute: Distribution,

    /// Initial number of regions [default: chosen by the cluster]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    regions: Option<u32>,

    /// Keep every row, without replacing rows of the same key and without deletes
    #[arg(long)]
    append_only: bool,

    /// Age after which rows expire, by the time column: 90d
    #[arg(long, value_name = "TIME", requires = "time_column")]
    ttl: Option<TimeSpan>,

    /// Length of the windows of time whose rows are compacted together, at least 1h: 1d [default: chosen by the
    /// cluster]
    #[arg(long, value_name = "TIME", requires = "time_column")]
    compaction_window: Option<TimeSpan>,

    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Serialize)]
struct Created {
    table_id: u32,
    name: String,
    state: &'static str,
}

/// Creates a table; returns when it accepts writes.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    run_with(options, None).await
}

/// Creates a table that mirrors a source, or one that clients write.
pub(crate) async fn run_with(
    options: Options,
    refresh: Option<v1::RefreshDefinition>,
) -> Result<(), Failure> {
    let output = options.client.output;
    let arguments = options.client.clone();
    let table = NewTable { refresh, ..new_table(options)? };
    let table = arguments.connect().await?.create_table(table).await?;
    let state = super::state_text(table.state());
    let created = Created { table_id: table.table_id, name: table.name, state };
    fact(output, &created, |created| {
        format!("table {} created (id {})", created.name, created.table_id)
    })
}

/// Builds the definition of the table. Validates it without the cluster, so that an error names the
/// option.
fn new_table(options: Options) -> Result<NewTable, Failure> {
    let columns = options.columns.0;
    let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let check = |option: &str, name: &str| {
        if known.contains(&name) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{option}: `{name}` is not among the columns: {}",
            known.join(", ")
        )))
    };
    let primary_key: Vec<String> =
        options.primary_key.iter().map(|name| name.trim().to_owned()).collect();
    for name in &primary_key {
        check("--primary-key", name)?;
    }
    if let Some(name) = &options.time_column {
        check("--time-column", name)?;
    }
    let hash_columns = match options.distribute {
        Distribution::Range => Vec::new(),
        Distribution::Hash(names) => names,
    };
    for name in &hash_columns {
        check("--distribute", name)?;
        if !primary_key.contains(name) {
            return Err(Failure::usage(format!(
                "--distribute: `{name}` is not part of the primary key ({})",
                primary_key.join(", ")
            )));
        }
    }
    Ok(NewTable {
        name: options.name,
        columns: columns
            .into_iter()
            .map(|column| NewColumn {
                nullable: column.nullable && !primary_key.contains(&column.name),
                ..column
            })
            .collect(),
        primary_key,
        time_column: options.time_column,
        write_mode: if options.append_only { WriteMode::AppendOnly } else { WriteMode::Upsert },
        hash_columns,
        vnode_count: 0,
        regions: options.regions.unwrap_or(0),
        ttl_ms: options.ttl.map(|ttl| ttl.0),
        compaction_window: options.compaction_window.map(TimeSpan::duration),
        holds_events: false,
        refresh: None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse_table(arguments: &[&str]) -> Result<NewTable, String> {
        let line = ["create", "t"].iter().chain(arguments);
        let options = Line::try_parse_from(line).map_err(|error| error.to_string())?.options;
        new_table(options).map_err(|failure| failure.message)
    }

    #[test]
    fn primary_key_columns_are_implicitly_not_null() {
        let table = parse_table(&[
            "--columns",
            "a utf8, b int64, c timestamp(ms)",
            "--primary-key",
            "b, a",
            "--time-column",
            "c",
            "--ttl",
            "90d",
            "--compaction-window",
            "1d",
            "--distribute",
            "hash(a)",
            "--append-only",
        ])
        .unwrap();
        let nullable: Vec<bool> = table.columns.iter().map(|column| column.nullable).collect();
        assert_eq!(nullable, [false, false, true]);
        assert_eq!(table.primary_key, ["b", "a"]);
        assert_eq!(table.hash_columns, ["a"]);
        assert_eq!(table.ttl_ms, Some(7_776_000_000));
        assert_eq!(table.compaction_window, Some(Duration::from_secs(86_400)));
        assert_eq!(table.write_mode, WriteMode::AppendOnly);
    }

    #[test]
    fn invalid_column_specs_name_the_bad_token() {
        let columns = ["--columns", "a utf8, b int64"];
        let with = |more: &[&str]| parse_table(&[&columns[..], more].concat()).unwrap_err();
        assert!(with(&["--primary-key", "x"]).contains("`x` is not among the columns: a, b"));
        assert!(with(&["--primary-key", "a", "--time-column", "x"]).contains("--time-column"));
        assert!(
            with(&["--primary-key", "a", "--distribute", "hash(b)"]).contains("primary key (a)")
        );
        for option in ["--ttl", "--compaction-window"] {
            assert!(with(&["--primary-key", "a", option, "90d"]).contains("--time-column"));
        }
        let unknown = parse_table(&["--columns", "a text", "--primary-key", "a"]).unwrap_err();
        assert!(unknown.contains("`text` is not a type") && unknown.contains("character 3"));
    }
}
