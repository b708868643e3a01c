//! What keeps a bad hook from slowing a node down.

use clap::Args;
use tidewater_region_engine::hooks::HookLimits;

use crate::text::span::Span;

/// Options of hooks, on every node that calls some.
#[derive(Debug, Clone, Args)]
pub(crate) struct HookArgs {
    /// Longest time of one call of a hook; what calls it waits that long at most
    #[arg(long, env = "TIDEWATER_HOOK_TIMEOUT", value_name = "TIME", default_value = "5s")]
    pub(crate) hook_timeout: Span,
}

impl HookArgs {
    /// As limits.
    pub(crate) fn limits(&self) -> HookLimits {
        HookLimits { time_limit: self.hook_timeout.duration(), ..HookLimits::default() }
    }
}
