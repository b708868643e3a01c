//! A hook as it is added to a registry.

use tidewater_common::ids::TableId;

use super::hook::RegionHookRef;

/// A hook with its name and scope.
#[derive(Debug, Clone)]
pub struct HookRegistration {
    /// Unique within the registry.
    pub name: String,
    /// The kind that created it; `None` for hooks of the program itself.
    pub kind: Option<String>,
    /// The only table that it sees; `None`: all.
    pub table: Option<TableId>,
    /// Initially paused.
    pub paused: bool,
    /// Called by readers of the manifest, through [`Plugins::durable`](super::Plugins::durable), and not when an event
    /// occurs.
    pub durable: bool,
    /// The hook.
    pub hook: RegionHookRef,
}

impl From<RegionHookRef> for HookRegistration {
    /// Registers under the hook's own name, for all tables.
    fn from(hook: RegionHookRef) -> Self {
        let name = hook.name().to_owned();
        Self { name, kind: None, table: None, paused: false, durable: false, hook }
    }
}
