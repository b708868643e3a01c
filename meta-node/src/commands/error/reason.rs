//! RPC errors of commands: the reason of each error, and waits before a retry.

use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::CommandError;

impl CommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotBootstrapped => Reason::NotBootstrapped,
            Self::AlreadyBootstrapped(_) => Reason::AlreadyBootstrapped,
            Self::FeatureLevel { .. } | Self::UnknownCommand | Self::UnknownProcedureKind(_) => {
                Reason::Unsupported
            }
            Self::LevelNotSupported { .. } | Self::LevelAboveRelease(_) | Self::Release(_) => {
                Reason::ReleaseUnsupported
            }
            Self::StaleTerm { .. } => Reason::NotLeader,
            Self::Malformed(_)
            | Self::SplitKeyTooLong(_)
            | Self::NotMergeable { .. }
            | Self::NotMovable { .. }
            | Self::BalanceRest(_)
            | Self::BalanceSetting(_)
            | Self::HotspotsNotOn
            | Self::Retiring(_)
            | Self::Replacement { .. }
            | Self::MemberReplacement { .. }
            | Self::NotADataNode { .. }
            | Self::RouteIdUsed(_)
            | Self::RouteIdTooHigh { .. }
            | Self::BoundTooLong(_)
            | Self::SavedRoutes { .. }
            | Self::SavedRoute(_)
            | Self::RoleCannotRegister
            | Self::BadAddress(_)
            | Self::ObjectStoreRequired
            | Self::BadNodeState(_)
            | Self::FirstMembers(_)
            | Self::GroupState { .. }
            | Self::BadReport(_)
            | Self::TableState { .. }
            | Self::NothingToAlter(_)
            | Self::Schema(_)
            | Self::UnknownColumn { .. }
            | Self::Regions { .. }
            | Self::HookName(_)
            | Self::HookConfigTooLong(_)
            | Self::TooManyAdvances(_)
            | Self::TooManyObservations(_)
            | Self::RequestIdReused(_) => Reason::InvalidArgument,
            Self::HookExists(_) => Reason::HookExists,
            Self::HookBeingRemoved(_) => Reason::TableBusy,
            Self::HookNotFound(_) => Reason::HookNotFound,
            Self::WrongCluster { .. } => Reason::WrongCluster,
            Self::WrongDirectory { .. } => Reason::WrongNode,
            Self::DirectoryCopied { .. } => Reason::DirectoryCopied,
            Self::RoleMismatch { .. } => Reason::RoleMismatch,
            Self::ObjectStoreMismatch { .. } => Reason::ObjectStoreMismatch,
            Self::NodeNotFound(_) => Reason::NodeNotFound,
            Self::NotAMember(_) | Self::NotReplaced(_) => Reason::MemberNotFound,
            Self::NodeRemoved(_) => Reason::NodeRemoved,
            Self::NodeAlreadyRemoved(_) => Reason::NodeAlreadyRemoved,
            Self::HomeTaken { .. } | Self::HomeGroups { .. } => Reason::MemberExists,
            Self::GroupNotFound(_) => Reason::GroupNotFound,
            Self::StaleReport(_) => Reason::MembershipStale,
            Self::TableExists(_) => Reason::TableExists,
            Self::TableBusy { .. } | Self::BeingCloned { .. } | Self::Locked { .. } => {
                Reason::TableBusy
            }
            Self::ProcedureNotFound(_) => Reason::ProcedureNotFound,
            Self::NotAbandonable { .. } | Self::NotRequested(_) => Reason::ProcedureNotAbandonable,
            Self::LoadNotFound(_) | Self::LoadNotOpen(_) | Self::LoadEnded { .. } => {
                Reason::LoadEnded
            }
            Self::TableNotFound(_) | Self::TableIdNotFound(_) => Reason::TableNotFound,
            Self::RouteNotFound(_) => Reason::RegionNotFound,
            Self::GroupInUse(_)
            | Self::LastGroup(_)
            | Self::NodeInUse { .. }
            | Self::NodeNotDraining(_)
            | Self::ReplacementInProgress { .. }
            | Self::NoRoomForGroups { .. } => Reason::MembershipBusy,
            Self::RouteLive(_) => Reason::RouteLive,
            Self::RouteNotActive { .. } => Reason::RouteBusy,
            Self::KeyOutsideRoute(_) => Reason::KeyOutsideRegion,
            Self::KeyOnBoundary(_) => Reason::KeyOnBoundary,
            Self::VersionMismatch { .. } => Reason::CatalogVersionMismatch,
            Self::NoGroups | Self::ObjectStoreUnknown => Reason::NoDataNodes,
            Self::OutcomesFull(_) => Reason::Overloaded,
            // Definite failures that a retry does not help.
            Self::IdsUsedUp(_)
            | Self::TooManyHooks(_)
            | Self::TooManyDurableHooks(_)
            | Self::Catalog(_) => Reason::Unsupported,
        }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let refusal = Self::new(error.reason(), error.to_string());
        match error {
            CommandError::NoGroups
            | CommandError::ObjectStoreUnknown
            | CommandError::OutcomesFull(_)
            | CommandError::StaleTerm { .. }
            | CommandError::NotBootstrapped => refusal.retry_after(Duration::from_millis(500)),
            _ => refusal,
        }
    }
}
