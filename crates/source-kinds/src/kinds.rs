//! Registry of source kinds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::{Source, SourceError, SourceKind, SourceSetupError, SourceTable};

/// Source kinds by name.
#[derive(Clone, Default)]
pub struct SourceKinds {
    kinds: BTreeMap<&'static str, Arc<dyn SourceKind>>,
}

impl fmt::Debug for SourceKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl SourceKinds {
    /// Adds a kind.
    ///
    /// # Errors
    /// [`SourceSetupError::KindTaken`].
    pub fn register(&mut self, kind: Arc<dyn SourceKind>) -> Result<(), SourceSetupError> {
        let name = kind.kind();
        if self.kinds.contains_key(name) {
            return Err(SourceSetupError::KindTaken { kind: name.to_owned() });
        }
        self.kinds.insert(name, kind);
        Ok(())
    }

    /// Checks a configuration. No I/O.
    ///
    /// # Errors
    /// [`SourceSetupError::UnknownKind`], [`SourceSetupError::BadConfig`].
    pub fn check(&self, kind: &str, config: &Value) -> Result<(), SourceSetupError> {
        let bad = |detail| SourceSetupError::BadConfig { kind: kind.to_owned(), detail };
        self.get(kind)?.check(config).map_err(bad)
    }

    /// Opens a source.
    ///
    /// # Errors
    /// [`SourceError`]; an unknown kind is [`SourceError::BadConfig`].
    pub async fn open(
        &self,
        kind: &str,
        config: &Value,
        table: SourceTable,
    ) -> Result<Box<dyn Source>, SourceError> {
        self.check(kind, config).map_err(|error| SourceError::BadConfig(error.to_string()))?;
        let known = self.get(kind).map_err(|error| SourceError::BadConfig(error.to_string()))?;
        known.open(config, table).await
    }

    /// Returns the server that a source reads from, as [`SourceKind::server`]; the name of a kind that is unknown.
    pub fn server(&self, kind: &str, config: &Value) -> String {
        self.kinds.get(kind).map_or_else(|| kind.to_owned(), |known| known.server(config))
    }

    fn get(&self, kind: &str) -> Result<&Arc<dyn SourceKind>, SourceSetupError> {
        self.kinds.get(kind).ok_or_else(|| SourceSetupError::UnknownKind {
            kind: kind.to_owned(),
            known: self.kinds.keys().copied().collect::<Vec<_>>().join(", "),
        })
    }
}
