//! `table list`

use clap::Args;
use serde::Serialize;
use tidewater_common::schema::dropped_table_name;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{self, Listed};

/// Options of `table list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater table list --output json\n\n`tidewater collection list` also shows dropped tables whose rows are \
                  held."
)]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// One table. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct TableLine {
    table_id: u32,
    name: String,
    state: &'static str,
    columns: usize,
}

impl Listed for TableLine {
    const HEADINGS: &'static [&'static str] = &["ID", "NAME", "STATE", "COLUMNS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.table_id.to_string(),
            self.name.clone(),
            self.state.to_owned(),
            self.columns.to_string(),
        ]
    }
}

/// Lists the tables.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let catalog = options.client.connect().await?.catalog();
    let lines: Vec<TableLine> = catalog
        .tables()
        // Of a dropped table, holds keep the rows: `collection list` shows it.
        .filter(|table| table.name != dropped_table_name(table.id))
        .map(|table| TableLine {
            table_id: table.id.get(),
            name: table.name.clone(),
            state: super::state_text(table.state),
            columns: table.schema.columns().len(),
        })
        .collect();
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_stable_json_fields() {
        let line = TableLine { table_id: 1, name: "t".into(), state: "active", columns: 2 };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"table_id":1,"name":"t","state":"active","columns":2}"#
        );
    }
}
