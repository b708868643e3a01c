//! Configured hooks.

use tidewater_common::ids::{Revision, TableId};
use tidewater_proto::v1;

use super::CatalogError;

/// A hook that nodes create and call. The hook kind interprets the configuration; the catalog does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Unique name.
    pub name: String,
    /// Hook kind.
    pub kind: String,
    /// Configuration of the kind, a JSON object.
    pub config: String,
    /// The only table that the hook observes; `None`: all tables.
    pub table: Option<TableId>,
    /// Nodes do not call the hook until an operator resumes it.
    pub paused: bool,
    /// Distinguishes the hook from hooks added later under the same name.
    pub generation: Revision,
    /// The hook receives every version of the manifests, tracked by [`HookCursor`](super::HookCursor)s.
    pub durable: bool,
}

impl Hook {
    /// Returns whether the hook observes a table.
    pub fn observes(&self, table: TableId) -> bool {
        self.table.is_none_or(|only| only == table)
    }
}

impl From<&Hook> for v1::Hook {
    fn from(hook: &Hook) -> Self {
        Self {
            name: hook.name.clone(),
            kind: hook.kind.clone(),
            config: hook.config.clone(),
            table_id: hook.table.map_or(0, TableId::get),
            paused: hook.paused,
            generation: hook.generation.get(),
            durable: hook.durable,
        }
    }
}

impl TryFrom<v1::Hook> for Hook {
    type Error = CatalogError;

    fn try_from(stored: v1::Hook) -> Result<Self, CatalogError> {
        if stored.name.is_empty() || stored.kind.is_empty() {
            let problem = "it has no name or no kind".to_owned();
            return Err(CatalogError::InvalidRecord { kind: "hook", problem });
        }
        Ok(Self {
            name: stored.name,
            kind: stored.kind,
            config: stored.config,
            table: (stored.table_id != 0).then_some(TableId(stored.table_id)),
            paused: stored.paused,
            generation: Revision(stored.generation),
            durable: stored.durable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};

    #[test]
    fn stored_hook_bytes_are_frozen() {
        let hook = Hook {
            name: "audit".to_owned(),
            kind: "jsonl".to_owned(),
            config: r#"{"path":"/x"}"#.to_owned(),
            table: Some(TableId(7)),
            paused: true,
            generation: Revision(42),
            durable: false,
        };
        let stored = codec::encode_message(&v1::Hook::from(&hook));
        let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(keys::hook("audit"), b"meta/hook/audit");
        let read = codec::decode_message::<v1::Hook>("hook", &stored).unwrap();
        assert_eq!(Hook::try_from(read).unwrap(), hook);
        let durable = Hook { durable: true, ..hook.clone() };
        assert_eq!(Hook::try_from(v1::Hook::from(&durable)).unwrap(), durable);
        let nameless = Hook { name: String::new(), ..hook };
        assert!(Hook::try_from(v1::Hook::from(&nameless)).is_err());
    }

    const GOLDEN: &str = "0189b57d6e0a05617564697412056a736f6e6c1a0d7b2270617468223a22\
                          2f78227d20072801302a";
}
