//! Kinds make hooks from configuration. What cannot be made is refused at once, not when it would
//! first be called.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;
use tidewater_common::ids::NodeId;

use super::error::HookSetupError;
use super::hook::RegionHookRef;

/// A hook by configuration, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSpec {
    /// Unique within a cluster.
    pub name: String,
    /// Which kind makes it.
    pub kind: String,
    /// What the kind needs to know; an object.
    pub config: Value,
    /// A call that returned well is never made again: what it told must have reached its destination
    /// by then, and outlive the process.
    pub durable: bool,
    /// Of the catalog's hook: another one of the same name has another; 0: it is in no catalog.
    pub generation: u64,
}

/// Where hooks are made: what they say of the node that calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookHome {
    /// `data`, `compactor`, or what an embedding program calls itself.
    pub role: &'static str,
    /// The node's id; 0 without a cluster.
    pub node_id: NodeId,
}

/// Makes hooks of one kind.
pub trait HookKind: Debug + Send + Sync + 'static {
    /// Its name.
    fn kind(&self) -> &'static str;

    /// Says, in words, what is wrong with a configuration. Touches nothing.
    fn check(&self, config: &Value) -> Result<(), String>;

    /// Makes a hook; says in words why it cannot. Waits for nobody: what a hook needs from disk or
    /// network it gets when it is called.
    fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, String>;
}

/// The kinds that a program knows.
#[derive(Debug, Clone, Default)]
pub struct HookKinds {
    kinds: BTreeMap<&'static str, Arc<dyn HookKind>>,
}

impl HookKinds {
    /// Adds a kind.
    ///
    /// # Errors
    /// [`HookSetupError::KindTaken`].
    pub fn register(&mut self, kind: Arc<dyn HookKind>) -> Result<(), HookSetupError> {
        let name = kind.kind();
        if self.kinds.contains_key(name) {
            return Err(HookSetupError::KindTaken { kind: name.to_owned() });
        }
        self.kinds.insert(name, kind);
        Ok(())
    }

    /// Whether a hook could be made of this; touches nothing.
    ///
    /// # Errors
    /// [`HookSetupError::UnknownKind`], [`HookSetupError::BadConfig`].
    pub fn check(&self, spec: &HookSpec) -> Result<(), HookSetupError> {
        self.get(spec)?.check(&spec.config).map_err(|detail| bad_config(spec, detail))
    }

    /// Makes a hook.
    ///
    /// # Errors
    /// [`HookSetupError::UnknownKind`], [`HookSetupError::BadConfig`].
    pub fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, HookSetupError> {
        let kind = self.get(spec)?;
        kind.check(&spec.config).map_err(|detail| bad_config(spec, detail))?;
        kind.make(spec, home).map_err(|detail| bad_config(spec, detail))
    }

    fn get(&self, spec: &HookSpec) -> Result<&Arc<dyn HookKind>, HookSetupError> {
        self.kinds.get(spec.kind.as_str()).ok_or_else(|| HookSetupError::UnknownKind {
            name: spec.name.clone(),
            kind: spec.kind.clone(),
            known: self.kinds.keys().copied().collect::<Vec<_>>().join(", "),
        })
    }
}

fn bad_config(spec: &HookSpec, detail: String) -> HookSetupError {
    HookSetupError::BadConfig { name: spec.name.clone(), kind: spec.kind.clone(), detail }
}
