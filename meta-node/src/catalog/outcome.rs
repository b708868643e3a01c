//! Outcomes of request ids, which make repeated requests return the same response.

use tidewater_common::ids::TableId;
use tidewater_proto::v1;

use super::CatalogError;

/// Kind of a request with a recorded outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// A table was created.
    CreateTable,
    /// A table was dropped.
    DropTable,
    /// A table was altered.
    AlterTable,
    /// A table was truncated.
    TruncateTable,
    /// A table was cloned.
    CloneTable,
    /// A load was begun.
    BeginLoad,
    /// A load was published.
    PublishLoad,
    /// A load was abandoned.
    AbandonLoad,
    /// A hook was added.
    AddHook,
    /// A hook was removed.
    RemoveHook,
    /// Routes of a reserved table were saved. From level 4 on.
    SaveRoutes,
    /// Ids of collections were handed out. From level 11 on.
    AllocateIds,
}

impl OutcomeKind {
    const ALL: [Self; 12] = [
        Self::CreateTable,
        Self::DropTable,
        Self::AlterTable,
        Self::TruncateTable,
        Self::CloneTable,
        Self::BeginLoad,
        Self::PublishLoad,
        Self::AbandonLoad,
        Self::AddHook,
        Self::RemoveHook,
        Self::SaveRoutes,
        Self::AllocateIds,
    ];

    fn stored(self) -> &'static str {
        match self {
            Self::CreateTable => "create",
            Self::DropTable => "drop",
            Self::AddHook => "add hook",
            Self::RemoveHook => "remove hook",
            Self::AlterTable => "alter",
            Self::TruncateTable => "truncate",
            Self::CloneTable => "clone",
            Self::BeginLoad => "load",
            Self::PublishLoad => "publish",
            Self::AbandonLoad => "abandon",
            Self::SaveRoutes => "save routes",
            Self::AllocateIds => "allocate ids",
        }
    }
}

/// Recorded outcome of a request id. Rejected requests are not recorded: they changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestOutcome {
    /// Replicated time of the request, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Kind of the request.
    pub kind: OutcomeKind,
    /// Name of the table or hook in the request.
    pub table_name: String,
    /// Id of the table; 0 for hooks.
    pub table_id: TableId,
    /// Checksum of the request; `None`: the arguments of a repeated request are not compared.
    pub arguments: Option<u32>,
}

impl From<&RequestOutcome> for v1::OutcomeRecord {
    fn from(outcome: &RequestOutcome) -> Self {
        Self {
            time_ms: outcome.time_ms,
            kind: outcome.kind.stored().to_owned(),
            table_name: outcome.table_name.clone(),
            table_id: outcome.table_id.get(),
            arguments: outcome.arguments,
        }
    }
}

impl TryFrom<v1::OutcomeRecord> for RequestOutcome {
    type Error = CatalogError;

    fn try_from(stored: v1::OutcomeRecord) -> Result<Self, CatalogError> {
        let kind = OutcomeKind::ALL
            .into_iter()
            .find(|kind| kind.stored() == stored.kind)
            .ok_or_else(|| CatalogError::InvalidRecord {
                kind: "outcome",
                problem: format!("its kind {:?} is unknown", stored.kind),
            })?;
        Ok(Self {
            time_ms: stored.time_ms,
            kind,
            table_name: stored.table_name,
            table_id: TableId(stored.table_id),
            arguments: stored.arguments,
        })
    }
}
