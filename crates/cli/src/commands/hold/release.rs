//! `hold release NAME...`

use clap::Args;
use serde::Serialize;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hold release`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold release nightly\n\nNames of holds that do not exist have no effect."
)]
pub(crate) struct Options {
    /// Names of the holds
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Number of holds that were released. The JSON field name is stable.
#[derive(Debug, Serialize)]
struct Released {
    released: u32,
}

/// Releases holds.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let released = client.release_read_holds(&options.names).await?;
    fact(options.client.output, &Released { released }, |done| match done.released {
        1 => "1 hold released".to_owned(),
        number => format!("{number} holds released"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_has_stable_json_fields() {
        let json = serde_json::to_string(&Released { released: 2 }).unwrap();
        assert_eq!(json, r#"{"released":2}"#);
    }
}
