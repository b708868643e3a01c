//! `event types`

use clap::Args;
use serde::Serialize;
use tidewater_cluster_events::{EventType, event_types};
use tidewater_events::Priority;

use crate::exit::Failure;
use crate::output::{Output, json, line};

/// Options of `event types`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater event types\n  tidewater event types --output json")]
pub(crate) struct Options {
    /// Output format
    #[arg(long, env = "TIDEWATER_OUTPUT", value_enum, default_value = "table")]
    output: Output,
}

/// A type of events. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct TypeLine {
    #[serde(rename = "type")]
    name: &'static str,
    priority: &'static str,
    meaning: &'static str,
    columns: Vec<ColumnLine>,
}

/// A column of a type.
#[derive(Debug, Serialize)]
struct ColumnLine {
    name: &'static str,
    #[serde(rename = "type")]
    value_type: &'static str,
    meaning: &'static str,
}

impl TypeLine {
    fn new(event_type: &EventType) -> Self {
        let columns = event_type.columns.iter().map(|column| ColumnLine {
            name: column.name,
            value_type: column.value_type.as_str(),
            meaning: column.meaning,
        });
        Self {
            name: event_type.name,
            priority: priority_text(event_type.priority),
            meaning: event_type.meaning,
            columns: columns.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} ({}): {}", self.name, self.priority, self.meaning);
        for column in &self.columns {
            let ColumnLine { name, value_type, meaning } = column;
            text.push_str(&format!("\n    {name:<18} {value_type:<8} {meaning}"));
        }
        text
    }
}

fn priority_text(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

/// Lists the types of events with their priorities, meanings and columns.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let lines: Vec<TypeLine> = event_types().into_iter().map(TypeLine::new).collect();
    match options.output {
        Output::Json => line(&json(&lines)?),
        Output::Table => {
            let texts: Vec<String> = lines.iter().map(TypeLine::text).collect();
            line(&texts.join("\n\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_cluster_events::types::RoomRefused;

    use super::*;

    #[test]
    fn event_type_has_stable_json_fields() {
        let line = TypeLine::new(&RoomRefused::TYPE);
        let json: serde_json::Value = serde_json::to_value(&line).unwrap();
        assert_eq!(
            (json["type"].as_str(), json["priority"].as_str()),
            (Some("room_refused"), Some("normal"))
        );
        let column = &json["columns"][0];
        assert_eq!(
            (column["name"].as_str(), column["type"].as_str()),
            (Some("node_id"), Some("uint64"))
        );
        assert!(column["meaning"].is_string() && json["meaning"].is_string());
    }

    #[test]
    fn type_is_shown_with_its_columns() {
        let text = TypeLine::new(&RoomRefused::TYPE).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + RoomRefused::TYPE.columns.len());
        assert!(lines[0].starts_with("room_refused (normal): "), "{text}");
        assert!(lines[1].starts_with("    node_id            uint64   "), "{text}");
    }
}
