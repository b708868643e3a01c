//! Holds that a command names, and its failure if they do not exist.

use tidewater_client::Client;
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use crate::exit::Failure;

/// Returns the tables of a hold.
pub(super) async fn tables_of(client: &Client, name: &str) -> Result<Vec<String>, Failure> {
    let found = client.read_hold(name).await?;
    let tables = found.map(|listed| listed.tables);
    tables.ok_or_else(|| missing(&[name.to_owned()]))
}

/// Returns the failure of a command on holds that do not exist; at least one. Text and exit status for one hold are those of
/// the meta leader.
pub(super) fn missing(names: &[String]) -> Failure {
    let shown: Vec<String> = names.iter().map(|name| quoted(name).to_string()).collect();
    let shown = shown.join(", ");
    let text = if names.len() == 1 {
        format!("hold {shown} does not exist: it was released, or its lease has expired")
    } else {
        format!("holds {shown} do not exist: they were released, or their leases have expired")
    };
    Refusal::new(Reason::HoldNotFound, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn missing_holds_are_named_with_the_remedy() {
        for (names, text) in [
            (&["a"][..], "hold \"a\" does not exist: it was released"),
            (&["a", "b"], "holds \"a\", \"b\" do not exist: they were released"),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let failure = missing(&names);
            assert_eq!(failure.exit, Exit::NotFound);
            assert!(failure.message.starts_with(text), "{failure}");
            assert!(failure.message.contains("`tidewater hold list`"), "{failure}");
        }
    }
}
