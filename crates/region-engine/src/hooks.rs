//! Hooks observe a region: an export, an external index, a cache, an audit trail, without a change
//! to the engine.
//!
//! Terms:
//!
//! - A **hook** is a [`RegionHook`]. Its [`HookRegistration`] in a [`Plugins`] registry adds a
//!   name, and optionally the one table that it sees; regions receive the registry through
//!   [`RegionEnv`](crate::env::RegionEnv).
//! - A **kind** creates hooks from configuration.
//! - A **call** is one method of one hook for one event. It has a time limit, and panics are
//!   caught.
//! - A hook that keeps failing is **suspended** for a while.
//!
//! A hook never changes what the engine does; it can only delay it.
//!
//! # Adding an operation
//!
//! - New data files, before the commit that references them: `RegionHooks::sst_files_written`. It
//!   waits for the hooks, at most their time limit, and cannot fail. A flush calls it in
//!   `Region::files_written`, a compaction in `Compactor::compact`.
//! - A logical change of the manifest: `ManifestContext::update_manifest`. For several changes
//!   under one lock: `lock`, `update_locked` for each, drop the guard, `fire` each receipt in
//!   order. `manifest::announce` decides, for all of them, whether a change is announced and as
//!   which kind.
//! - Bookkeeping: `ManifestContext::record`, which notifies no hooks.
//! - Deleted files and passes of garbage collection: `RegionHooks::files_removed`, `region_gc`.
//! - States of a region: `Phase`; `region::lifecycle` derives the calls.
//! - The new operation's row: `region/tests/hooks/coverage.rs`, which does not compile without it.
//!
//! # Layout
//!
//! - `hook`: the trait. `event`: an event with the identity of its region. `payload`: the arguments of
//!   the trait's methods. `file_statistics`: column statistics of an event's files.
//! - `plugins`: the registry. `registration`: its entries. `kinds`: hooks from configuration. `sets`:
//!   registries created from lists in requests. `error`: their errors.
//! - `durable`: hooks that are called by readers of the manifest.
//! - `calls`: the hooks of one region, and one function for each event.
//! - `shield`: one call: time limit, panics, counters. `suspension`: rules of suspension (pure).

mod calls;
mod durable;
mod error;
mod event;
mod file_statistics;
mod hook;
mod kinds;
mod payload;
mod plugins;
mod registration;
mod sets;
mod shield;
mod suspension;

pub(crate) use self::calls::RegionHooks;
pub use self::durable::DurableHook;
pub use self::error::{HookError, HookSetupError};
pub use self::event::{EventSource, HookEvent, RegionEvent};
pub use self::file_statistics::{
    ColumnSummary, FileStatisticsReader, MAX_BOUND_BYTES, MAX_EVENT_COLUMNS,
};
pub use self::hook::{RegionHook, RegionHookRef};
pub use self::kinds::{HookHome, HookKind, HookKinds, HookSpec};
pub use self::payload::{
    FilesRemoved, GcPass, ManifestKind, RegionMetaActionList, RegionRole, RegionSnapshot,
    RemovalReason, SstFileInfo, SstInfo,
};
pub use self::plugins::Plugins;
pub use self::registration::HookRegistration;
pub use self::sets::{HookSets, MAX_HOOKS};
pub use self::shield::{HookState, HookStatus};
pub use self::suspension::{HookLimits, SuspensionCallback};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
