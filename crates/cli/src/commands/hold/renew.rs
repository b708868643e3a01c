//! `hold renew NAME...`

use clap::Args;
use serde::Serialize;
use tidewater_client::Client;
use tidewater_common::quote::quoted;
use tidewater_meta_node::catalog::EXPORT_HOLD_PREFIX;

use super::held_line::has_lease;
use super::named::missing;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::fact;

/// Options of `hold renew`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater hold renew nightly\n\nThe new leases begin now, with the length that the holds were \
                  acquired with. If holds do not exist any more, the others are renewed, and the exit status is 3. The hold of an \
                  export has no lease: with its name, no hold is renewed, and the exit status is 2."
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
    check_leases(&client, &options.names).await?;
    let not_found = client.renew_read_holds(&options.names).await?;
    if !not_found.is_empty() {
        return Err(missing(&not_found));
    }
    fact(options.client.output, &Renewed { renewed: options.names }, |done| {
        format!("renewed: {}", done.renewed.join(", "))
    })
}

/// Refuses names of holds without a lease. Only the names of exports' holds have the prefix, and holds from before the feature
/// level of exports, which have a lease.
async fn check_leases(client: &Client, names: &[String]) -> Result<(), Failure> {
    for name in names.iter().filter(|name| name.starts_with(EXPORT_HOLD_PREFIX)) {
        let hold = client.read_hold(name).await?.and_then(|listed| listed.hold);
        if hold.is_some_and(|hold| !has_lease(&hold)) {
            return Err(without_lease(name));
        }
    }
    Ok(())
}

fn without_lease(name: &str) -> Failure {
    let export = name.strip_prefix(EXPORT_HOLD_PREFIX).unwrap_or(name);
    Failure::usage(format!(
        "hold {} has no lease: it stays until its export is dropped (`tidewater export drop {export}`)",
        quoted(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn renewed_holds_have_stable_json_fields() {
        let renewed = Renewed { renewed: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!(serde_json::to_string(&renewed).unwrap(), r#"{"renewed":["a","b"]}"#);
    }

    #[test]
    fn hold_of_an_export_is_refused_with_the_remedy() {
        let failure = without_lease("export:lake");
        assert_eq!(failure.exit, Exit::Usage);
        let text = "hold \"export:lake\" has no lease: it stays until its export is dropped (`tidewater export drop lake`)";
        assert_eq!(failure.message, text);
    }
}
