//! `table alter NAME`

use std::str::FromStr;

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::{AlterTable, ColumnChange};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::columns::ColumnSpecs;
use crate::text::time_span::TimeSpan;

/// Options of `table alter`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater table alter flights --add-column 'alliance utf8' --add-column \
                  'seats int32 not null default 0'\n  tidewater table alter flights --drop-column \
                  alliance\n  tidewater table alter flights --ttl 90d\n\nAll changes of one command take \
                  effect together: columns are dropped first, then added. A column that is dropped and \
                  added again is empty. Existing rows return the default of a new column, or null \
                  without one."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,
    /// Column to add: name, type, `not null`, `default VALUE`; may be repeated
    #[arg(long, value_name = "COLUMN")]
    add_column: Vec<ColumnSpecs>,
    /// Column to drop with its values; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    drop_column: Vec<String>,
    /// Age after which rows expire, by the time column: 90d, or none
    #[arg(long, value_name = "TIME|none")]
    ttl: Option<TimeSpanOrNone>,
    /// Length of the windows of time whose rows are compacted together, at least 1h: 1d, or none: chosen by the
    /// cluster
    #[arg(long, value_name = "TIME|none")]
    compaction_window: Option<TimeSpanOrNone>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeSpanOrNone(Option<TimeSpan>);

impl FromStr for TimeSpanOrNone {
    type Err = <TimeSpan as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|span| Self(Some(span))),
        }
    }
}

#[derive(Debug, Serialize)]
struct Altered {
    table_id: u32,
    name: String,
    schema_version: u32,
}

/// Alters a table; returns when every region has applied the change.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let output = options.client.output;
    let client = options.client.clone();
    let name = options.name.clone();
    let change = change(options)?;
    let table = client.connect().await?.alter_table(&name, change).await?;
    let schema_version = table.schema.as_ref().map_or(0, |schema| schema.version);
    let altered = Altered { table_id: table.table_id, name: table.name, schema_version };
    fact(output, &altered, |altered| {
        format!("table {} altered (schema version {})", altered.name, altered.schema_version)
    })
}

fn change(options: Options) -> Result<AlterTable, Failure> {
    let dropped = options.drop_column.into_iter().map(ColumnChange::Drop);
    let added = options.add_column.into_iter().flat_map(|columns| columns.0).map(ColumnChange::Add);
    let change = AlterTable {
        columns: dropped.chain(added).collect(),
        ttl_ms: options.ttl.map(|ttl| ttl.0.map(|span| span.0)),
        compaction_window: options.compaction_window.map(|window| window.0.map(TimeSpan::duration)),
        by_node: false,
    };
    if change == AlterTable::default() {
        return Err(Failure::usage(
            "nothing to alter: give --add-column, --drop-column, --ttl or --compaction-window",
        ));
    }
    Ok(change)
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

    fn parse_change(arguments: &[&str]) -> Result<AlterTable, String> {
        let line = ["alter", "t"].iter().chain(arguments);
        let options = Line::try_parse_from(line).map_err(|error| error.to_string())?.options;
        change(options).map_err(|failure| failure.message)
    }

    #[test]
    fn alter_drops_columns_before_adding_them() {
        let change = parse_change(&[
            "--add-column",
            "a int8 default 1, b utf8",
            "--drop-column",
            "a",
            "--ttl",
            "none",
        ])
        .unwrap();
        assert_eq!(change.ttl_ms, Some(None));
        assert_eq!(change.columns[0], ColumnChange::Drop("a".to_owned()));
        let ColumnChange::Add(added) = &change.columns[1] else { panic!("{change:?}") };
        assert_eq!((added.name.as_str(), added.default.as_deref()), ("a", Some("1")));
        assert_eq!(change.columns.len(), 3);
    }

    #[test]
    fn compaction_window_is_set_and_removed() {
        let window = |text| parse_change(&["--compaction-window", text]).unwrap().compaction_window;
        assert_eq!(window("1d"), Some(Some(Duration::from_secs(86_400))));
        assert_eq!(window("none"), Some(None));
        assert_eq!(parse_change(&["--ttl", "none"]).unwrap().compaction_window, None);
    }

    #[test]
    fn invalid_alter_arguments_name_the_bad_token() {
        let error = |arguments: &[&str]| parse_change(arguments).unwrap_err();
        assert!(error(&[]).contains("nothing to alter"));
        assert!(error(&["--add-column", "a text"]).contains("`text` is not a type"));
        assert!(error(&["--ttl", "soon"]).contains("not a duration"));
    }
}
