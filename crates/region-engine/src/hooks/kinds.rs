//! Kinds create hooks from configuration. An invalid configuration is refused immediately, not at
//! the first call.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use serde_json::Value;
use tidewater_common::ids::NodeId;

use super::error::HookSetupError;
use super::hook::RegionHookRef;

/// Configuration of a hook, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSpec {
    /// Unique within a cluster.
    pub name: String,
    /// The kind that creates it.
    pub kind: String,
    /// Configuration for the kind; a JSON object.
    pub config: Value,
    /// A successful call of a durable hook is never repeated: its effect must have reached its
    /// destination by then, and must survive the process.
    pub durable: bool,
    /// Generation of the catalog's hook: a later hook of the same name has another one; 0: not in a
    /// catalog.
    pub generation: u64,
}

/// The node for which hooks are created, as they report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookHome {
    /// `data`, `compactor`, or the role of an embedding program.
    pub role: &'static str,
    /// The node's id; 0 without a cluster.
    pub node_id: NodeId,
}

/// Creates hooks of one kind.
pub trait HookKind: Debug + Send + Sync + 'static {
    /// Returns the name of the kind.
    fn kind(&self) -> &'static str;

    /// Checks a configuration; the error is a description of the problem. No I/O.
    fn check(&self, config: &Value) -> Result<(), String>;

    /// Creates a hook; the error is a description of the problem. Must not block: a hook acquires
    /// disk and network resources when it is called.
    fn make(&self, spec: &HookSpec, home: HookHome) -> Result<RegionHookRef, String>;
}

/// The kinds of a program.
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

    /// Checks whether a hook can be created from this configuration. No I/O.
    ///
    /// # Errors
    /// [`HookSetupError::UnknownKind`], [`HookSetupError::BadConfig`].
    pub fn check(&self, spec: &HookSpec) -> Result<(), HookSetupError> {
        self.get(spec)?.check(&spec.config).map_err(|detail| bad_config(spec, detail))
    }

    /// Creates a hook.
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
