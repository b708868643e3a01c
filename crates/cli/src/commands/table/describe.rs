//! `table describe NAME`

mod collection;
mod stored;

use clap::Args;
use serde::Serialize;
use tidewater_client::catalog::TableInfo;
use tidewater_common::schema::WriteMode;

use crate::commands::client::ClientArgs;
use crate::commands::refresh::StatusLine;
use crate::exit::Failure;
use crate::output::terminal::note;
use crate::output::{fact, table};
use crate::text::time_span::TimeSpan;

use self::collection::Collection;
use self::stored::Stored;

/// Options of `table describe`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater table describe flights\n  tidewater table describe flights \
                  --output json\n  tidewater table describe flights --costs --timeout 10m\n\nRows, sizes and times are sums over the regions, as their owners \
                  report them. Rows are exact for append-only tables without a time to live. In other \
                  tables, overwritten, deleted and expired rows count until a compaction removes them. \
                  A region whose owner does not answer is listed, and the sums name their number of \
                  regions.\n\nThe epochs are those that all regions can read; they are left out while an owner \
                  does not answer. Those of a refreshable table are reported by the meta leader. The read policy, the holds and the capabilities keep them. With --costs, \
                  FREED VERSIONS and FREED SIZE are what would be freed if the hold and all earlier ones of \
                  the table ended. Sizes are estimated by the average version, and the count of a large region \
                  takes longer than the default --timeout. Epochs, policy and holds need feature level 9."
)]
pub(crate) struct Options {
    /// Name of the table
    name: String,

    /// Show what the end of the holds would free; reads the keys of all rows
    #[arg(long)]
    costs: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Description of a table. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Description {
    table_id: u32,
    name: String,
    state: &'static str,
    schema_version: u32,
    columns: Vec<ColumnLine>,
    primary_key: Vec<String>,
    time_column: Option<String>,
    append_only: bool,
    distribute: String,
    ttl_ms: Option<u64>,
    compaction_window_ms: Option<u64>,
    holds_events: bool,
    regions: usize,
    stored: Stored,
    /// Epochs that can be read, and what keeps them; null below feature level 9, and for a refreshable table whose frontiers
    /// the meta leader does not report.
    collection: Option<Collection>,
    /// Source and refreshes of a refreshable table.
    refresh: Option<StatusLine>,
}

#[derive(Debug, Serialize)]
struct ColumnLine {
    column_id: u32,
    name: String,
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
    default: Option<String>,
}

/// Shows a table's columns, options, rows, files and readable epochs.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let found = client.table_regions(&options.name).await?;
    let mut refresh = None;
    if found.table.options.refreshable {
        refresh = client.refreshes(Some(&options.name), false).await?.first().map(StatusLine::from);
    }
    let stored = Stored::of(&found.table, &found.regions);
    let collection = match Collection::of(&client, &found, options.costs).await {
        // The reports of the owners are shown without the meta leader.
        Err(error) if !options.costs => {
            note(&format!("warning: readable epochs and holds are not shown: {error}"));
            None
        }
        collection => collection?,
    };
    let description = Description { collection, refresh, ..describe(&found.table, stored) };
    fact(options.client.output, &description, text)
}

fn describe(info: &TableInfo, stored: Stored) -> Description {
    let schema = &info.schema;
    let name_of = |id| schema.column(id).map(|column| column.name.clone());
    Description {
        table_id: info.id.get(),
        name: info.name.clone(),
        state: super::state_text(info.state),
        schema_version: schema.version().get(),
        columns: schema
            .columns()
            .iter()
            .map(|column| ColumnLine {
                column_id: column.id.get(),
                name: column.name.clone(),
                data_type: column.data_type.to_string(),
                nullable: column.nullable,
                default: column.default.clone(),
            })
            .collect(),
        primary_key: schema.primary_key().iter().copied().filter_map(name_of).collect(),
        time_column: schema.time_column().and_then(name_of),
        append_only: info.options.write_mode == WriteMode::AppendOnly,
        distribute: match &info.options.hash {
            None => "range".to_owned(),
            Some(hash) => {
                let names: Vec<String> = hash.columns.iter().copied().filter_map(name_of).collect();
                format!("hash({})", names.join(", "))
            }
        },
        ttl_ms: info.options.ttl_ms,
        compaction_window_ms: info.options.compaction_window_ms(),
        holds_events: info.options.holds_events,
        regions: stored.regions,
        stored,
        collection: None,
        refresh: None,
    }
}

fn writes(description: &Description) -> &'static str {
    match (&description.refresh, description.append_only) {
        (Some(_), _) => "by refreshes",
        (None, true) => "append-only",
        (None, false) => "upsert",
    }
}

fn text(description: &Description) -> String {
    let columns = description.columns.iter().map(|column| {
        let nullable = if column.nullable { "" } else { "not null" };
        let default = column.default.as_ref().map(|text| format!("default {text}"));
        let words: Vec<&str> = [Some(nullable), default.as_deref()]
            .into_iter()
            .flatten()
            .filter(|word| !word.is_empty())
            .collect();
        vec![column.name.clone(), column.data_type.clone(), words.join(" ")]
    });
    let mut facts = vec![
        format!("table        {} (id {})", description.name, description.table_id),
        format!("state        {}", description.state),
        format!("primary key  {}", description.primary_key.join(", ")),
        format!("distributed  {}, {} regions", description.distribute, description.regions),
        format!("writes       {}", writes(description)),
    ];
    if let Some(column) = &description.time_column {
        facts.push(format!("time column  {column}"));
    }
    if let Some(ttl) = description.ttl_ms {
        facts.push(format!("expires      after {}", TimeSpan(ttl)));
    }
    if let Some(window) = description.compaction_window_ms {
        facts.push(format!("compaction   by windows of {}", TimeSpan(window)));
    }
    if description.holds_events {
        facts.push("holds        events".to_owned());
    }
    if let Some(refresh) = &description.refresh {
        facts.push(format!("source       {} {}", refresh.source_kind, refresh.source_config));
        facts.push(format!("refreshes    {}, generation {}", refresh.state, refresh.generation));
        let published =
            refresh.published_epoch.map_or("none".to_owned(), |epoch| epoch.to_string());
        facts.push(format!("published    epoch {published}"));
    }
    facts.extend(description.stored.lines());
    let collection = description.collection.as_ref();
    facts.extend(collection.map(Collection::lines).unwrap_or_default());
    let mut parts = vec![facts.join("\n"), table(&["COLUMN", "TYPE", ""], columns)];
    parts.extend(collection.and_then(Collection::hold_table));
    parts.join("\n\n")
}
