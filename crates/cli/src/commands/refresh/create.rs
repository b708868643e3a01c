//! `refresh create NAME`

use clap::Args;
use tidewater_proto::v1;

use super::alter::Settings;
use crate::commands::table::create;
use crate::exit::Failure;

/// Options of `refresh create`.
#[derive(Debug, Args)]
#[group(id = "refresh_create")]
#[command(
    after_help = "Example:\n  tidewater refresh create airlines --columns 'carrier utf8, name utf8' \
                  --primary-key carrier --source csv --config \
                  '{\"url\": \"file:///srv/airlines\"}' --interval 10m\n  tidewater refresh create \
                  flights --columns 'id int64, origin utf8' --primary-key id --source postgres --config \
                  '{\"host\": \"db\", \"database\": \"ops\", \"user\": \"reader\", \"password_file\": \
                  \"/etc/tidewater/secrets/db\", \"query\": \"select id, origin from flights\"}'\n\n\
                  Passwords and keys are in files on the data nodes (`data --source-secret-dir`), never \
                  in the configuration. A password file has lines host:port:database:user:password."
)]
pub(crate) struct Options {
    #[command(flatten)]
    table: create::Options,

    /// Kind of the source: parquet, csv, ndjson, postgres, or one of the program
    #[arg(long, value_name = "KIND")]
    source: String,

    /// Configuration of the source, a JSON object
    #[arg(long, value_name = "JSON")]
    config: String,

    #[command(flatten)]
    settings: Settings,
}

/// Creates a refreshable table; returns when it can be refreshed.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let config: serde_json::Value = serde_json::from_str(&options.config)
        .map_err(|error| Failure::usage(format!("--config is no JSON: {error}")))?;
    let refresh = v1::RefreshDefinition {
        source_kind: options.source,
        source_config: config.to_string(),
        settings: Some(options.settings.apply(v1::RefreshSettings::default())),
    };
    create::run_with(options.table, Some(refresh)).await
}
