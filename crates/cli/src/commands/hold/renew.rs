//! `hold renew NAME...`

use clap::Args;
use serde::Serialize;

use super::named::missing;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hold renew`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold renew nightly\n\nThe new leases begin now, with the length that the holds were \
                  acquired with. If holds do not exist any more, the others are renewed, and the exit status is 3."
)]
pub(crate) struct Options {
    /// Names of the holds
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Holds that were renewed. The JSON field name is stable.
#[derive(Debug, Serialize)]
struct Renewed {
    renewed: Vec<String>,
}

/// Extends the leases of holds.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let not_found = client.renew_read_holds(&options.names).await?;
    if !not_found.is_empty() {
        return Err(missing(&not_found));
    }
    fact(options.client.output, &Renewed { renewed: options.names }, |done| {
        format!("renewed: {}", done.renewed.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_holds_have_stable_json_fields() {
        let renewed = Renewed { renewed: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(serde_json::to_string(&renewed).unwrap(), r#"{"renewed":["a","b"]}"#);
    }
}
