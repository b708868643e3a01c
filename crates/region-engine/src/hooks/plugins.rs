//! The registry: which hooks there are, and for whom. Shared by all regions of a process; what is
//! inserted or removed counts from the next event on, also for regions that are open.

use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::TableId;

use super::durable::DurableHook;
use super::error::HookSetupError;
use super::hook::RegionHookRef;
use super::shield::{HookStatus, ShieldedHook};
use super::suspension::HookLimits;

/// A hook with its name and its reach.
#[derive(Debug, Clone)]
pub struct HookRegistration {
    /// Unique within the registry.
    pub name: String,
    /// The kind that made it; `None` for hooks of the program itself.
    pub kind: Option<String>,
    /// The only table that it sees; `None`: all.
    pub table: Option<TableId>,
    /// Whether it begins paused.
    pub paused: bool,
    /// Whether it is told by whoever reads the manifest, through [`Plugins::durable`], and not when
    /// something happens.
    pub durable: bool,
    /// The hook.
    pub hook: RegionHookRef,
}

/// See the module's head. Clones are handles to the same registry.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    limits: HookLimits,
    /// In order of name.
    hooks: RwLock<Vec<Arc<ShieldedHook>>>,
}

impl From<RegionHookRef> for HookRegistration {
    /// Under the hook's own name, for all tables.
    fn from(hook: RegionHookRef) -> Self {
        let name = hook.name().to_owned();
        Self { name, kind: None, table: None, paused: false, durable: false, hook }
    }
}

impl Plugins {
    /// An empty registry with these limits.
    pub fn new(limits: HookLimits) -> Self {
        Self { inner: Arc::new(Inner { limits, hooks: RwLock::default() }) }
    }

    /// Adds a hook: a [`RegionHookRef`], or a [`HookRegistration`] for more choice.
    ///
    /// # Errors
    /// [`HookSetupError::NameTaken`].
    pub fn insert(&self, plugin: impl Into<HookRegistration>) -> Result<(), HookSetupError> {
        self.share(Arc::new(ShieldedHook::new(plugin.into(), self.inner.limits)))
    }

    /// Adds a hook that other registries may have as well: it is paused, suspended and counted once.
    pub(super) fn share(&self, hook: Arc<ShieldedHook>) -> Result<(), HookSetupError> {
        let mut hooks = self.inner.hooks.write();
        match hooks.binary_search_by(|one| one.plugin.name.cmp(&hook.plugin.name)) {
            Ok(_) => Err(HookSetupError::NameTaken { name: hook.plugin.name.clone() }),
            Err(place) => {
                hooks.insert(place, hook);
                Ok(())
            }
        }
    }

    /// Removes a hook; calls that have begun come to their end. Whether there was one.
    pub fn remove(&self, name: &str) -> bool {
        let mut hooks = self.inner.hooks.write();
        let before = hooks.len();
        hooks.retain(|one| one.plugin.name != name);
        hooks.len() < before
    }

    /// Stops calling a hook, or goes on. Whether there is one.
    pub fn set_paused(&self, name: &str, paused: bool) -> bool {
        let hooks = self.inner.hooks.read();
        let found = hooks.iter().find(|one| one.plugin.name == name);
        found.inspect(|one| one.set_paused(paused)).is_some()
    }

    /// All hooks, in order of name.
    pub fn status(&self) -> Vec<HookStatus> {
        self.inner.hooks.read().iter().map(|one| one.status()).collect()
    }

    /// A durable hook, by name.
    pub fn durable(&self, name: &str) -> Option<DurableHook> {
        let hooks = self.inner.hooks.read();
        let found = hooks.iter().find(|one| one.plugin.durable && one.plugin.name == name);
        found.cloned().map(DurableHook::new)
    }

    /// Those that are told of this table's events as they happen, in order of name.
    pub(super) fn of(&self, table: TableId) -> Vec<Arc<ShieldedHook>> {
        let hooks = self.inner.hooks.read();
        let sees = |one: &&Arc<ShieldedHook>| {
            !one.plugin.durable && one.plugin.table.is_none_or(|only| only == table)
        };
        hooks.iter().filter(sees).cloned().collect()
    }
}
