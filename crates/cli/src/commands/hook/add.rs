//! `hook add NAME --kind KIND --config JSON`

use clap::Args;
use tidewater_client::{HookFrom, NewHook};

use super::Changed;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hook add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook add mirror --kind webhook --config '{\"url\": \
                  \"https://example.org/in\", \"secret_file\": \"/etc/tidewater/mirror\"}' \
                  --table flights\n  tidewater hook add export --kind jsonl --config \
                  '{\"path\": \"/var/log/tidewater/export.jsonl\"}' --durable --from start\n\n\
                  Kinds:\n  jsonl    {\"path\": FILE}\n  webhook  {\"url\": URL, \"secret_file\": FILE, \"queue\": N, \"timeout_ms\": N}\n\n\
                  A hook is called where things happen: on the data node that owns a region, and on \
                  the compactor that merges its files. FILE is of that node, so a secret has to be on all \
                  of them. A durable hook is called by data nodes only.")]
pub(crate) struct Options {
    /// Name of the hook: letters, digits, '-', '_' and '.'
    name: String,

    /// What makes it: jsonl or webhook
    #[arg(long)]
    kind: String,

    /// What the kind needs to know
    #[arg(long, value_name = "JSON")]
    config: String,

    /// The only table that it sees
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,

    /// Tell it of every version of the manifests, in order and without a gap, also after crashes
    #[arg(long)]
    durable: bool,

    /// Where a durable hook begins: now, start (all live files, then what follows), or a version
    #[arg(long, value_name = "now|start|VERSION", requires = "durable", value_parser = begin)]
    from: Option<HookFrom>,

    #[command(flatten)]
    client: ClientArgs,
}

fn begin(text: &str) -> Result<HookFrom, String> {
    match text {
        "now" => Ok(HookFrom::Now),
        "start" | "bootstrap" => Ok(HookFrom::Start),
        version => match version.parse() {
            Ok(0) | Err(_) => Err("give now, start, or a version from 1 on".to_owned()),
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
    let added = Changed { name: options.name, state: "active" };
    fact(options.client.output, &added, |added| format!("hook {} is added", added.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_hook_begins_is_a_word_or_a_version() {
        assert_eq!(begin("now"), Ok(HookFrom::Now));
        assert_eq!(begin("start"), Ok(HookFrom::Start));
        assert_eq!(begin("bootstrap"), Ok(HookFrom::Start));
        assert_eq!(begin("17"), Ok(HookFrom::Version(17)));
        for wrong in ["0", "-1", "", "NOW", "1.5", "99999999999999999999"] {
            assert!(begin(wrong).is_err(), "{wrong:?}");
        }
    }
}
