//! `hook add NAME --kind KIND --config JSON`

use clap::Args;
use tidewater_client::{HookFrom, NewHook};

use super::HookChange;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hook add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook add mirror --kind webhook --config '{\"url\": \
                  \"https://example.org/in\", \"secret_file\": \"/etc/tidewater/mirror\"}' \
                  --table flights\n  tidewater hook add export --kind jsonl --config \
                  '{\"path\": \"/var/lib/tidewater-hooks/export.jsonl\"}' --durable --from start\n\n\
                  Kinds:\n  events   {}\n  jsonl    {\"path\": FILE}\n  webhook  {\"url\": URL, \"secret_file\": FILE, \"queue\": N, \"timeout_ms\": N}\n\n\
                  A hook is called on the data node that owns a region, and on the compactor that \
                  compacts its files. FILE is a path on that node: of jsonl below its --hook-dir, of a \
                  secret below its --hook-secret-dir. A URL names a public address unless the nodes \
                  run with --allow-private-webhooks. Only data nodes call durable hooks.")]
pub(crate) struct Options {
    /// Name of the hook: letters, digits, '-', '_' and '.'
    name: String,

    /// Kind of the hook: events, jsonl or webhook
    #[arg(long)]
    kind: String,

    /// Configuration of the kind, as JSON
    #[arg(long, value_name = "JSON")]
    config: String,

    /// Report changes of this table only
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    /// Report every manifest version in order and without gaps, also across crashes
    #[arg(long)]
    durable: bool,

    /// Start of a durable hook: now, start (all live files, then later versions), or a version
    #[arg(long, value_name = "now|start|VERSION", requires = "durable", value_parser = parse_start)]
    from: Option<HookFrom>,

    #[command(flatten)]
    client: ClientArgs,
}

fn parse_start(text: &str) -> Result<HookFrom, String> {
    match text {
        "now" => Ok(HookFrom::Now),
        "start" | "bootstrap" => Ok(HookFrom::Start),
        version => match version.parse() {
            Ok(0) | Err(_) => Err("must be now, start, or a version from 1".to_owned()),
            Ok(version) => Ok(HookFrom::Version(version)),
        },
    }
}

/// Adds a hook.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let hook = NewHook {
        name: options.name.clone(),
        kind: options.kind,
        config: options.config,
        table: options.table,
        durable: options.durable.then(|| options.from.unwrap_or(HookFrom::Now)),
    };
    options.client.connect().await?.add_hook(hook).await?;
    let added = HookChange { name: options.name, state: "active" };
    fact(options.client.output, &added, |added| format!("hook {} added", added.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_start_is_a_keyword_or_a_version() {
        assert_eq!(parse_start("now"), Ok(HookFrom::Now));
        assert_eq!(parse_start("start"), Ok(HookFrom::Start));
        assert_eq!(parse_start("bootstrap"), Ok(HookFrom::Start));
        assert_eq!(parse_start("17"), Ok(HookFrom::Version(17)));
        for wrong in ["0", "-1", "", "NOW", "1.5", "99999999999999999999"] {
            assert!(parse_start(wrong).is_err(), "{wrong:?}");
        }
    }
}
