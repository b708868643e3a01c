//! `export create NAME --table TABLE --to URL`

use clap::Args;
use tidewater_client::{Client, ExportDefinition};
use tidewater_proto::v1::ListedExport;

use super::export_line::ExportLine;
use super::interval::interval;
use super::target::target;
use super::wait::wait;
use crate::commands::client::ClientArgs;
use crate::commands::held_epoch::named_epoch;
use crate::exit::Failure;
use crate::output::fact;
use crate::text::as_of::AsOf;
use crate::text::time_span::TimeSpan;

/// Options of `export create`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater export create lake --table flights --to file:///srv/exports/flights --wait --timeout 1h\n  \
                  tidewater export create lake --table flights --to s3://lake/flights --config '{\"endpoint\": \
                  \"https://s3.example.org\", \"credentials_file\": \"/etc/tidewater/secrets/lake\"}' --every 1m\n  tidewater \
                  export create audit --table flights --to file:///srv/exports/audit --as-of 5m\n\nThe prefix must have no objects. \
                  Returns when the export is created; with --wait, when the contents are exported, or with exit status 5 \
                  and the last failure when --timeout has passed. The export continues in any case: `tidewater export list` \
                  shows its progress.\n\nDirectories are below the --export-dir of the data nodes, which share them. Keys are in \
                  files on the data nodes (`data --source-secret-dir`), never in the configuration."
)]
pub(crate) struct Options {
    /// Name of the export
    name: String,

    /// Table to export
    #[arg(long, value_name = "TABLE")]
    table: String,

    /// URL of the prefix: file:///directory or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    to: String,

    /// Further fields of the target, a JSON object: endpoint, region, credentials_file, allow_http
    #[arg(long, value_name = "JSON")]
    config: Option<String>,

    /// Export the contents as of an epoch: its number, a duration before now (by the time of the cluster, e.g. 5m), or a time
    /// [default: that of the token, otherwise the current one]
    #[arg(long, value_name = "EPOCH|TIME", value_parser = AsOf::held)]
    as_of: Option<AsOf>,

    /// Token of `tidewater export prepare`, which this export uses up
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Time between the begins of two steps; 1s to 1d
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    every: TimeSpan,

    /// Wait until the contents are exported, at most for the time of --timeout
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Creates an export; returns when it is created, or when its contents are exported.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let target = target(&options.to, options.config.as_deref())?;
    let client = options.client.connect().await?;
    let output = options.client.output;
    if options.wait {
        let timeout = options.client.timeout;
        let created = create(&client, options, target).await?;
        let exported = wait(&client, &created.export.unwrap_or_default(), timeout).await?;
        return fact(output, &ExportLine::from(exported), ExportLine::contents_text);
    }
    let created = create(&client, options, target).await?;
    fact(output, &ExportLine::from(created), ExportLine::creation_text)
}

async fn create(
    client: &Client,
    options: Options,
    target: String,
) -> Result<ListedExport, Failure> {
    let table = options.table;
    let definition = ExportDefinition {
        name: options.name,
        table: table.clone(),
        target,
        epoch: named_epoch(client, options.as_of, &table).await?,
        token: options.token,
        interval: options.every.duration(),
    };
    let export = client.create_export(definition).await?;
    Ok(ListedExport { export: Some(export), table, ..ListedExport::default() })
}
