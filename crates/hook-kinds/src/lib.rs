//! Built-in hook kinds, which every node knows. The region engine has the hook trait and the
//! registry, and no network code; this crate implements the hooks that are created from
//! configuration.
//!
//! - **Record**: one call of a hook as a JSON object. It lives until its sink has delivered or
//!   dropped it, or until it is the payload of an event.
//! - **Sink**: the destination of a hook's records. It lives as long as its hook.
//!
//! # Layout
//!
//! - `record`: calls as JSON (pure). `record_hook`: the hook that passes records to a sink.
//! - [`jsonl`]: appends each record to a file, as one line by one write.
//! - [`webhook`]: posts each record to a URL, signed, from a bounded queue, until it is accepted.
//! - [`events`]: records each call as an event of the node's recorder. `event_tables`: tables about which it records
//!   nothing.
//! - `hook_version`: shared events about versions that a durable hook receives (pure).
//! - [`access`]: directories and addresses that the operator of a node grants to hooks, and its recorder. `files`:
//!   files below these directories.
//! - `meters`: metrics of these kinds.

pub mod access;
mod event_tables;
pub mod events;
mod files;
mod hook_version;
pub mod jsonl;
mod meters;
mod record;
mod record_hook;
#[cfg(test)]
mod testing;
pub mod webhook;

use std::sync::Arc;

use tidewater_region_engine::hooks::HookKinds;

pub use self::access::HookAccess;
pub use self::event_tables::EventTables;
pub use self::events::EVENTS_KIND;
pub use self::hook_version::HookVersion;
pub use self::meters::METRICS;

/// Returns the registry with `events`, `jsonl` and `webhook`, whose hooks use what `access` allows. Checks
/// of a configuration do not depend on it, only the creation of a hook.
pub fn builtin(access: HookAccess) -> HookKinds {
    let mut kinds = HookKinds::default();
    // Their names differ, so neither is rejected.
    let _ = kinds.register(Arc::new(events::Events { access: access.clone() }));
    let _ = kinds.register(Arc::new(jsonl::Jsonl { access: access.clone() }));
    let _ = kinds.register(Arc::new(webhook::Webhook { access }));
    kinds
}

/// Parses a configuration; an error describes the problem for the user.
fn parse<C: serde::de::DeserializeOwned>(config: &serde_json::Value) -> Result<C, String> {
    if !config.is_object() {
        return Err("it must be a JSON object".to_owned());
    }
    serde_json::from_value(config.clone()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidewater_region_engine::hooks::HookSpec;

    use super::*;

    fn check(kind: &str, config: Value) -> Result<(), String> {
        let spec = HookSpec {
            name: "mine".to_owned(),
            kind: kind.to_owned(),
            config,
            durable: false,
            generation: 0,
        };
        builtin(HookAccess::default()).check(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn valid_hook_configurations_are_accepted() {
        for (kind, config) in [
            (EVENTS_KIND, json!({})),
            ("jsonl", json!({ "path": "/var/log/tidewater/hooks.jsonl" })),
            ("webhook", json!({ "url": "http://127.0.0.1:9/in" })),
            ("webhook", json!({ "url": "https://example.org/x?y=1", "secret_file": "/etc/key" })),
            ("webhook", json!({ "url": "https://example.org", "queue": 10, "timeout_ms": 100 })),
        ] {
            check(kind, config.clone()).unwrap_or_else(|error| panic!("{config}: {error}"));
        }
    }

    #[test]
    fn hook_configuration_errors_name_the_problem() {
        for (kind, config, expected) in [
            ("queue", json!({}), "unknown kind \"queue\"; known are events, jsonl, webhook"),
            (EVENTS_KIND, json!({ "table": "t" }), "unknown field `table`"),
            (EVENTS_KIND, json!([]), "it must be a JSON object"),
            ("jsonl", json!([]), "it must be a JSON object"),
            ("jsonl", json!({}), "missing field `path`"),
            ("jsonl", json!({ "path": "hooks.jsonl" }), "the path must be absolute"),
            ("jsonl", json!({ "path": "/tmp/" }), "the path must name a file"),
            ("jsonl", json!({ "path": "/x", "pth": "/y" }), "unknown field `pth`"),
            ("webhook", json!({ "url": "127.0.0.1:9" }), "the url"),
            ("webhook", json!({ "url": "ftp://example.org" }), "the url must begin with http"),
            ("webhook", json!({ "url": "http://u:p@example.org" }), "must not hold a password"),
            ("webhook", json!({ "url": "http://x", "queue": 0 }), "queue must be from 1 to"),
            ("webhook", json!({ "url": "http://x", "queue": 1_000_000 }), "queue must be from 1"),
            ("webhook", json!({ "url": "http://x", "timeout_ms": 0 }), "timeout_ms must be from"),
            ("webhook", json!({ "url": "http://x", "secret_file": "k" }), "secret_file must be"),
            ("webhook", json!({ "url": "http://x", "secret": "s3cr3t" }), "unknown field `secret`"),
        ] {
            let error = check(kind, config.clone()).expect_err(&config.to_string());
            assert!(error.contains(expected), "{config}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
