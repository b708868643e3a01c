//! `export drop NAME`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `export drop`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater export drop lake\n\nThe objects stay. An export cannot continue below a prefix that has \
                  objects: another one needs another prefix."
)]
pub(crate) struct Options {
    /// Name of the export
    name: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Export that was dropped. The JSON field name is stable.
#[derive(Debug, Serialize)]
struct Dropped {
    dropped: String,
}

/// Ends an export.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.drop_export(&options.name).await?;
    fact(options.client.output, &Dropped { dropped: options.name }, |done| {
        format!("export {} dropped; its objects stay", done.dropped)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_export_has_stable_json_fields() {
        let json = serde_json::to_string(&Dropped { dropped: "e".to_owned() }).unwrap();
        assert_eq!(json, r#"{"dropped":"e"}"#);
    }
}
