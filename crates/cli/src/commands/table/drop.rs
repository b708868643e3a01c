//! `table drop NAME`

use clap::Args;
use serde::Serialize;
use tidewater_client::admin::DroppedTable;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `table drop`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater table drop airlines\n\nThe name of the table is free, and the table can no longer be written. If \
                        read holds keep rows of it, they remain readable at the held epochs, under a reserved name, until the last \
                        hold ends: `tidewater collection list` shows the table and its oldest hold. A table that is exported, or \
                        has read capabilities, is not dropped."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// A table that was dropped. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Dropped {
    table_id: u32,
    name: String,
    /// Name under which its rows can be read at held epochs; null: they are removed.
    kept_as: Option<String>,
    /// Hold at the oldest epoch.
    oldest_hold: Option<String>,
    /// Number of holds.
    holds: u32,
}

impl Dropped {
    fn new(name: String, DroppedTable { table, kept }: DroppedTable) -> Self {
        Self {
            table_id: table.get(),
            name,
            kept_as: kept.as_ref().map(|kept| kept.name.clone()),
            holds: kept.as_ref().map_or(0, |kept| kept.holds),
            oldest_hold: kept.map(|kept| kept.hold),
        }
    }

    fn text(&self) -> String {
        let name = &self.name;
        match (&self.kept_as, &self.oldest_hold) {
            (Some(kept_as), Some(hold)) => {
                let holds = match self.holds {
                    1 => format!("hold {hold} ends"),
                    holds => format!("{holds} holds end, the oldest of which is {hold}"),
                };
                format!(
                    "table {name} dropped; its rows can be read as {kept_as} at held epochs until {holds}"
                )
            }
            _ => format!("table {name} dropped"),
        }
    }
}

/// Drops a table and all its rows that no hold keeps.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let dropped = options.client.connect().await?.drop_table(&options.name).await?;
    fact(options.client.output, &Dropped::new(options.name, dropped), Dropped::text)
}

#[cfg(test)]
mod tests {
    use tidewater_client::admin::KeptRows;
    use tidewater_common::ids::TableId;

    use super::*;

    fn dropped(holds: u32) -> Dropped {
        let kept = KeptRows { name: "_tw_dropped_7".to_owned(), hold: "h".to_owned(), holds };
        let kept = (holds > 0).then_some(kept);
        Dropped::new("t".to_owned(), DroppedTable { table: TableId(7), kept })
    }

    #[test]
    fn dropped_table_shows_the_holds_that_keep_its_rows() {
        assert_eq!(dropped(0).text(), "table t dropped");
        let kept = "table t dropped; its rows can be read as _tw_dropped_7 at held epochs until";
        assert_eq!(dropped(1).text(), format!("{kept} hold h ends"));
        let several = format!("{kept} 2 holds end, the oldest of which is h");
        assert_eq!(dropped(2).text(), several);
        assert_eq!(
            serde_json::to_string(&dropped(2)).unwrap(),
            r#"{"table_id":7,"name":"t","kept_as":"_tw_dropped_7","oldest_hold":"h","holds":2}"#
        );
        assert_eq!(
            serde_json::to_string(&dropped(0)).unwrap(),
            r#"{"table_id":7,"name":"t","kept_as":null,"oldest_hold":null,"holds":0}"#
        );
    }
}
