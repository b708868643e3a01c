//! Limits of hook calls, so that a bad hook cannot slow a node down.

use clap::Args;
use tidewater_region_engine::hooks::HookLimits;

use crate::text::span::Span;

/// Options of nodes that call hooks.
#[derive(Debug, Clone, Args)]
pub(crate) struct HookArgs {
    /// Timeout of one hook call, which blocks its caller at most that long
    #[arg(long, env = "TIDEWATER_HOOK_TIMEOUT", value_name = "TIME", default_value = "5s")]
    pub(crate) hook_timeout: Span,
}

impl HookArgs {
    /// Returns the arguments as hook limits.
    pub(crate) fn limits(&self) -> HookLimits {
        HookLimits { time_limit: self.hook_timeout.duration(), ..HookLimits::default() }
    }
}
