//! `hook list`

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1::{HookInfo, HookState};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::grouped;
use crate::output::{self, Listed};

/// Options of `hook list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater hook list --output json")]
pub(crate) struct Options {
    #[command(flatten)]
    client: ClientArgs,
}

/// One hook. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct HookLine {
    name: String,
    kind: String,
    /// `None`: all tables.
    table: Option<String>,
    durable: bool,
    state: &'static str,
    calls: u64,
    failures: u64,
    /// Accepted calls that have not reached their destination. For a durable hook, manifest versions
    /// that it has not received.
    lag: u64,
    last_error: Option<String>,
}

impl Listed for HookLine {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "KIND", "TABLE", "DURABLE", "STATE", "CALLS", "FAILURES", "LAG", "LAST ERROR"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.kind.clone(),
            self.table.clone().unwrap_or_else(|| "all".to_owned()),
            if self.durable { "yes" } else { "no" }.to_owned(),
            self.state.to_owned(),
            grouped(self.calls),
            grouped(self.failures),
            grouped(self.lag),
            self.last_error.clone().unwrap_or_default(),
        ]
    }
}

impl From<HookInfo> for HookLine {
    fn from(info: HookInfo) -> Self {
        let state = state_text(info.state());
        let some = |text: String| (!text.is_empty()).then_some(text);
        let hook = info.hook.unwrap_or_default();
        Self {
            name: hook.name,
            kind: hook.kind,
            table: some(info.table),
            durable: hook.durable,
            state,
            calls: info.calls,
            failures: info.failures,
            lag: info.backlog,
            last_error: some(info.last_error),
        }
    }
}

fn state_text(state: HookState) -> &'static str {
    match state {
        HookState::Unspecified => "unknown",
        HookState::Active => "active",
        HookState::Paused => "paused",
        HookState::Suspended => "suspended",
        HookState::Broken => "broken",
        HookState::Lagged => "lagged",
    }
}

/// Lists the hooks.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let hooks = options.client.connect().await?.hooks().await?;
    let lines: Vec<HookLine> = hooks.into_iter().map(HookLine::from).collect();
    output::list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;

    use super::*;

    #[test]
    fn hook_has_stable_json_fields() {
        let hook = v1::Hook { name: "a".into(), kind: "jsonl".into(), ..Default::default() };
        let info = HookInfo {
            hook: Some(hook),
            table: "t".into(),
            state: HookState::Active.into(),
            calls: 3,
            failures: 1,
            backlog: 2,
            last_error: String::new(),
        };
        assert_eq!(
            serde_json::to_string(&HookLine::from(info)).unwrap(),
            r#"{"name":"a","kind":"jsonl","table":"t","durable":false,"state":"active","calls":3,"failures":1,"lag":2,"last_error":null}"#
        );
    }
}
