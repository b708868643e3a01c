//! `export cancel TOKEN`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `export cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater export cancel \"$TOKEN\"\n\nA token that was used, has expired or does not exist \
                  has no effect. `tidewater export drop` ends an export."
)]
pub(crate) struct Options {
    /// Token of `export prepare`
    token: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Token that was cancelled. The JSON field name is stable.
#[derive(Debug, Serialize)]
struct Cancelled {
    cancelled: String,
}

/// Releases the hold of a token.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    options.client.connect().await?.cancel_prepare_export(&options.token).await?;
    fact(options.client.output, &Cancelled { cancelled: options.token }, |done| {
        format!("token {} cancelled", done.cancelled)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_token_has_stable_json_fields() {
        let json = serde_json::to_string(&Cancelled { cancelled: "t".to_owned() }).unwrap();
        assert_eq!(json, r#"{"cancelled":"t"}"#);
    }
}
