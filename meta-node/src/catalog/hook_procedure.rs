//! Unfinished additions and removals of durable hooks.

use tidewater_common::ids::{ManifestVersion, RegionId, Revision};
use tidewater_proto::v1::{self, CursorState};

use super::CatalogError;

/// Creation or deletion of a hook's cursors, in steps of some regions each: one command for all regions
/// would delay every other command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookProcedure {
    /// The hook's name.
    pub hook: String,
    /// The hook's generation.
    pub generation: Revision,
    /// The regions with smaller ids are done.
    pub next_region: RegionId,
    /// Change of each region.
    pub work: CursorWork,
}

/// Change that a [`HookProcedure`] makes in each region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorWork {
    /// Creates a cursor at this position, unless the region has one.
    Create {
        /// Version of the new cursors.
        version: ManifestVersion,
        /// State of the new cursors.
        state: CursorState,
    },
    /// Deletes the cursor of the removed hook.
    Delete,
}

impl From<&HookProcedure> for v1::HookProcedure {
    fn from(procedure: &HookProcedure) -> Self {
        let create = match procedure.work {
            CursorWork::Create { version, state } => {
                Some(v1::CursorStart { version: version.get(), state: state.into() })
            }
            CursorWork::Delete => None,
        };
        Self {
            hook: procedure.hook.clone(),
            generation: procedure.generation.get(),
            next_region_id: procedure.next_region.get(),
            create,
        }
    }
}

impl TryFrom<v1::HookProcedure> for HookProcedure {
    type Error = CatalogError;

    fn try_from(stored: v1::HookProcedure) -> Result<Self, CatalogError> {
        let work = match stored.create {
            Some(start) if start.state() == CursorState::Unspecified => {
                let problem = "the state of its cursors is unknown".to_owned();
                return Err(CatalogError::InvalidRecord { kind: "hook procedure", problem });
            }
            Some(start) => {
                CursorWork::Create { version: ManifestVersion(start.version), state: start.state() }
            }
            None => CursorWork::Delete,
        };
        Ok(Self {
            hook: stored.hook,
            generation: Revision(stored.generation),
            next_region: RegionId(stored.next_region_id),
            work,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{codec, keys};

    #[test]
    fn stored_procedure_bytes_are_frozen() {
        let create = HookProcedure {
            hook: "audit".to_owned(),
            generation: Revision(42),
            next_region: RegionId(300),
            work: CursorWork::Create { version: ManifestVersion(6), state: CursorState::From },
        };
        let delete = HookProcedure { work: CursorWork::Delete, ..create.clone() };
        assert_eq!(keys::hook_procedure("audit"), b"meta/hook_procedure/audit");
        for (procedure, golden) in [(create, CREATE), (delete, DELETE)] {
            let stored = codec::encode_message(&v1::HookProcedure::from(&procedure));
            let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden);
            let read = codec::decode_message::<v1::HookProcedure>("hook procedure", &stored);
            assert_eq!(HookProcedure::try_from(read.unwrap()).unwrap(), procedure);
        }
        let unknown = v1::HookProcedure {
            create: Some(v1::CursorStart { version: 1, state: 99 }),
            ..v1::HookProcedure::default()
        };
        assert!(HookProcedure::try_from(unknown).is_err());
    }

    const CREATE: &str = "01227841970a056175646974102a18ac02220408061003";
    const DELETE: &str = "01cb920caf0a056175646974102a18ac02";
}
