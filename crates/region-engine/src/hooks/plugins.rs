//! The registry of hooks. Shared by all regions of a process; insertions and removals take effect
//! with the next event, also for open regions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::TableId;

use super::durable::DurableHook;
use super::error::HookSetupError;
use super::registration::HookRegistration;
use super::shield::{HookStatus, ShieldedHook};
use super::suspension::{HookLimits, SuspensionCallback};

/// Registry of hooks. Clones are handles to the same registry.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    limits: HookLimits,
    on_suspension: Option<Arc<dyn SuspensionCallback>>,
    /// In order of name.
    hooks: RwLock<Vec<Arc<ShieldedHook>>>,
    /// Names of the catalog's tables, for events.
    table_names: RwLock<BTreeMap<TableId, Arc<str>>>,
}

impl Plugins {
    /// Creates an empty registry with these limits.
    pub fn new(limits: HookLimits) -> Self {
        Self { inner: Arc::new(Inner { limits, ..Inner::default() }) }
    }

    /// Creates an empty registry with these limits, whose suspensions are reported to a callback.
    pub fn with_callback(limits: HookLimits, callback: Arc<dyn SuspensionCallback>) -> Self {
        let on_suspension = Some(callback);
        Self { inner: Arc::new(Inner { limits, on_suspension, ..Inner::default() }) }
    }

    /// Adds a hook: a [`RegionHookRef`](super::RegionHookRef), or a [`HookRegistration`] for more options.
    ///
    /// # Errors
    /// [`HookSetupError::NameTaken`].
    pub fn insert(&self, registration: impl Into<HookRegistration>) -> Result<(), HookSetupError> {
        let hook = ShieldedHook::new(registration.into(), self.inner.limits);
        self.share(Arc::new(hook.with_callback(self.inner.on_suspension.clone())))
    }

    /// Adds a hook that other registries may share: pause, suspension and counters are common to
    /// all.
    pub(super) fn share(&self, hook: Arc<ShieldedHook>) -> Result<(), HookSetupError> {
        let mut hooks = self.inner.hooks.write();
        match hooks.binary_search_by(|other| other.registration.name.cmp(&hook.registration.name)) {
            Ok(_) => Err(HookSetupError::NameTaken { name: hook.registration.name.clone() }),
            Err(position) => {
                hooks.insert(position, hook);
                Ok(())
            }
        }
    }

    /// Removes a hook; calls in progress complete. Returns `true` if the hook existed.
    pub fn remove(&self, name: &str) -> bool {
        let mut hooks = self.inner.hooks.write();
        let before = hooks.len();
        hooks.retain(|hook| hook.registration.name != name);
        hooks.len() < before
    }

    /// Pauses or resumes a hook. Returns `true` if the hook exists.
    pub fn set_paused(&self, name: &str, paused: bool) -> bool {
        let hooks = self.inner.hooks.read();
        let found = hooks.iter().find(|hook| hook.registration.name == name);
        found.inspect(|hook| hook.set_paused(paused)).is_some()
    }

    /// Returns the status of all hooks, in order of name.
    pub fn status(&self) -> Vec<HookStatus> {
        self.inner.hooks.read().iter().map(|hook| hook.status()).collect()
    }

    /// Returns a durable hook by name.
    pub fn durable(&self, name: &str) -> Option<DurableHook> {
        let hooks = self.inner.hooks.read();
        let found =
            hooks.iter().find(|hook| hook.registration.durable && hook.registration.name == name);
        found.cloned().map(DurableHook::new)
    }

    /// Sets the name of a table for later events; `None` removes it.
    pub fn set_table_name(&self, table: TableId, name: Option<&str>) {
        let mut names = self.inner.table_names.write();
        match name {
            Some(name) => drop(names.insert(table, name.into())),
            None => drop(names.remove(&table)),
        }
    }

    /// Removes the names of all tables but these.
    pub fn retain_table_names(&self, tables: &BTreeSet<TableId>) {
        self.inner.table_names.write().retain(|table, _| tables.contains(table));
    }

    /// Returns the name of a table.
    pub fn table_name(&self, table: TableId) -> Option<Arc<str>> {
        self.inner.table_names.read().get(&table).cloned()
    }

    /// Returns the hooks that are called for this table's events as they occur, in order of name.
    pub(super) fn hooks_of(&self, table: TableId) -> Vec<Arc<ShieldedHook>> {
        let hooks = self.inner.hooks.read();
        let sees = |hook: &&Arc<ShieldedHook>| {
            !hook.registration.durable && hook.registration.table.is_none_or(|only| only == table)
        };
        hooks.iter().filter(sees).cloned().collect()
    }
}
