//! Holder of a hold, for people: the user and the machine of this process.

use std::path::Path;

use tidewater_common::file::read_text;

/// File with the name of the machine.
const HOST_FILE: &str = "/proc/sys/kernel/hostname";
/// Largest content of the file, in bytes.
const MAX_HOST_BYTES: u64 = 1_024;

/// Returns the holder for the user and the machine of this process.
pub(super) fn this_holder() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    let host = match std::env::var("HOSTNAME") {
        Ok(host) => Some(host),
        Err(_) => read_text(Path::new(HOST_FILE), MAX_HOST_BYTES).ok(),
    };
    holder(user.as_deref(), host.as_deref())
}

/// Returns `user@host`; empty if one of them is unknown.
fn holder(user: Option<&str>, host: Option<&str>) -> String {
    let known = |text: Option<&str>| {
        text.map(str::trim).filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    match (known(user), known(host)) {
        (Some(user), Some(host)) => format!("{user}@{host}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_needs_user_and_host() {
        assert_eq!(holder(Some("ops"), Some("db-1\n")), "ops@db-1");
        for (user, host) in [
            (None, Some("db-1")),
            (Some("ops"), None),
            (Some(""), Some("db-1")),
            (Some("ops"), Some("\n")),
        ] {
            assert_eq!(holder(user, host), "", "{user:?} {host:?}");
        }
    }
}
