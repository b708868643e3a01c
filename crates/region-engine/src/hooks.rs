//! Hooks observe a region: an export, an external index, a cache, an audit trail, without a change
//! to the engine.
//!
//! A **hook** is a [`RegionHook`]. A **plugin** is a hook with a name, and perhaps a table that it
//! is limited to, in a [`Plugins`] registry; the registry is handed to regions through
//! [`RegionEnv`](crate::env::RegionEnv). A **kind** makes hooks from configuration. A **call** is
//! one method of one hook for one event; it has a time limit and is shielded from panics, and a hook
//! that keeps failing is **suspended** for a while. Nothing that a hook does changes what the engine
//! does, but for the time that it takes.
//!
//! # For those who add an operation
//!
//! - New data files, before the commit that names them: `RegionHooks::sst_files_written`. It waits
//!   for the hooks, at most their time limit, and cannot fail. A flush does so by
//!   `Region::files_written`, a compaction in `Compactor::compact`.
//! - A logical change of the manifest: `ManifestContext::update_manifest`. For several changes under
//!   one lock: `lock`, `update_locked` for each, drop the guard, `fire` each receipt in order. What is
//!   announced, and as what, is decided by `manifest::announce`, for all of them.
//! - Bookkeeping: `ManifestContext::record`, which fires nothing.
//! - Files deleted and passes of garbage collection: `RegionHooks::files_removed`, `region_gc`.
//! - States of a region: `Phase`; `region::lifecycle` derives the calls.
//! - The new operation's row: `region/tests/hooks/coverage.rs`, which does not compile without it.
//!
//! # Layout
//!
//! - `hook`: the trait. `payload`: what its methods are given.
//! - `plugins`: the registry. `kinds`: from configuration to hooks. `sets`: registries made from
//!   lists that come with requests. `error`: what they refuse.
//! - `durable`: a hook that is told by whoever reads the manifest.
//! - `calls`: the hooks of one region, and one function for each event.
//! - `shield`: one call: time limit, panics, counters. `suspension`: when a hook is left out (pure).

mod calls;
mod durable;
mod error;
mod hook;
mod kinds;
mod payload;
mod plugins;
mod sets;
mod shield;
mod suspension;

pub(crate) use self::calls::RegionHooks;
pub use self::durable::DurableHook;
pub use self::error::{HookError, PluginError};
pub use self::hook::{RegionHook, RegionHookRef};
pub use self::kinds::{HookHome, HookKind, HookKinds, PluginSpec};
pub use self::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    RemovalReason, SstFileInfo, SstInfo,
};
pub use self::plugins::{Plugin, Plugins};
pub use self::sets::{MOST_PLUGINS, PluginSets};
pub use self::shield::{HookState, HookStatus};
pub use self::suspension::HookLimits;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
