//! RPC errors of commands: the reason of each error, and waits before a retry.

use std::time::Duration;

use tidewater_collections::CapabilityError;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::{
    CollectionCommandError, CommandError, GroupCommandError, HookCommandError, NodeCommandError,
    RefreshCommandError, RouteCommandError,
};

impl CommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotBootstrapped => Reason::NotBootstrapped,
            Self::AlreadyBootstrapped(_) => Reason::AlreadyBootstrapped,
            Self::FeatureLevel { .. }
            | Self::UnknownCommand
            | Self::UnknownProcedureKind(_)
            | Self::IdsUsedUp(_)
            | Self::Catalog(_) => Reason::Unsupported,
            Self::LevelNotSupported { .. } | Self::LevelAboveRelease(_) | Self::Release(_) => {
                Reason::ReleaseUnsupported
            }
            Self::StaleTerm { .. } => Reason::NotLeader,
            Self::Malformed(_)
            | Self::TableState { .. }
            | Self::NothingToAlter(_)
            | Self::Schema(_)
            | Self::UnknownColumn { .. }
            | Self::Regions { .. }
            | Self::TooManyObservations(_)
            | Self::RequestIdReused(_) => Reason::InvalidArgument,
            Self::WrongCluster { .. } => Reason::WrongCluster,
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
            Self::OutcomesFull(_) => Reason::Overloaded,
            Self::Node(error) => error.reason(),
            Self::Group(error) => error.reason(),
            Self::Route(error) => error.reason(),
            Self::Hook(error) => error.reason(),
            Self::Refresh(error) => error.reason(),
            Self::Collection(error) => error.reason(),
        }
    }
}

impl NodeCommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Replacement { .. }
            | Self::MemberReplacement { .. }
            | Self::NotADataNode { .. }
            | Self::RoleCannotRegister
            | Self::BadAddress(_)
            | Self::ObjectStoreRequired
            | Self::BadNodeState(_) => Reason::InvalidArgument,
            Self::WrongDirectory { .. } => Reason::WrongNode,
            Self::DirectoryCopied { .. } => Reason::DirectoryCopied,
            Self::RoleMismatch { .. } => Reason::RoleMismatch,
            Self::ObjectStoreMismatch { .. } => Reason::ObjectStoreMismatch,
            Self::NodeNotFound(_) => Reason::NodeNotFound,
            Self::NotAMember(_) | Self::NotReplaced(_) => Reason::MemberNotFound,
            Self::NodeRemoved(_) => Reason::NodeRemoved,
            Self::NodeAlreadyRemoved(_) => Reason::NodeAlreadyRemoved,
            Self::NodeInUse { .. }
            | Self::NodeNotDraining(_)
            | Self::ReplacementInProgress { .. }
            | Self::NoRoomForGroups { .. } => Reason::MembershipBusy,
            Self::ObjectStoreUnknown => Reason::NoDataNodes,
        }
    }
}

impl CollectionCommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Held { .. } | Self::Exported { .. } | Self::Capable { .. } => Reason::Held,
            Self::HoldNotFound(_) => Reason::HoldNotFound,
            Self::HoldExists(_) => Reason::HoldExists,
            Self::ExportNotFound(_) => Reason::ExportNotFound,
            Self::ExportExists(_) => Reason::ExportExists,
            Self::ExportTokenExpired(_) => Reason::ExportTokenExpired,
            Self::ExportPrefixInUse { .. } => Reason::ExportPrefixInUse,
            Self::TooMany { .. }
            | Self::TooManyExports(_)
            | Self::TooManyIds(_)
            | Self::BadRequest(_)
            | Self::PolicyNotEmpty(_)
            | Self::Policy(_)
            | Self::Changes(_) => Reason::InvalidArgument,
            Self::IdentifierMissing(_) => Reason::IdentifierMissing,
            Self::IdentifierInvalid(_) => Reason::IdentifierInvalid,
            Self::IdReused(_) => Reason::IdentifierReused,
            Self::BelowSince { .. } => Reason::EpochBelowSince,
            Self::SinceNotOwn(_) | Self::SinceUnknown(_) => Reason::TableBusy,
            Self::Capabilities { error: CapabilityError::BelowSince { .. }, .. } => {
                Reason::EpochBelowSince
            }
            Self::Capabilities { .. } => Reason::InvalidCapabilities,
        }
    }
}

impl RefreshCommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotRefreshable(_) => Reason::NotRefreshable,
            Self::Refreshable { .. } => Reason::TableRefreshable,
            Self::AlreadyRefreshing { .. } => Reason::AlreadyRefreshing,
            Self::SourceMismatch { .. } => Reason::SourceMismatch,
            Self::Paused(_) | Self::EpochComplete { .. } => Reason::TableBusy,
            Self::SourceShrunk { .. } => Reason::SourceShrunk,
            Self::BadSetting(_) => Reason::InvalidArgument,
        }
    }
}

impl GroupCommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::BalanceRest(_)
            | Self::BalanceSetting(_)
            | Self::HotspotsNotOn
            | Self::Retiring(_)
            | Self::FirstMembers(_)
            | Self::GroupState { .. }
            | Self::BadReport(_) => Reason::InvalidArgument,
            Self::HomeTaken { .. } | Self::HomeGroups { .. } => Reason::MemberExists,
            Self::GroupNotFound(_) => Reason::GroupNotFound,
            Self::StaleReport(_) => Reason::MembershipStale,
            Self::GroupInUse(_) | Self::LastGroup(_) => Reason::MembershipBusy,
            Self::NoGroups => Reason::NoDataNodes,
        }
    }
}

impl RouteCommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::SplitKeyTooLong(_)
            | Self::NotMergeable { .. }
            | Self::NotMovable { .. }
            | Self::RouteIdUsed(_)
            | Self::RouteIdTooHigh { .. }
            | Self::BoundTooLong(_)
            | Self::SavedRoutes { .. }
            | Self::SavedRoute(_) => Reason::InvalidArgument,
            Self::RouteNotFound(_) => Reason::RegionNotFound,
            Self::RouteLive(_) => Reason::RouteLive,
            Self::RouteNotActive { .. } => Reason::RouteBusy,
            Self::KeyOutsideRoute(_) => Reason::KeyOutsideRegion,
            Self::KeyOnBoundary(_) => Reason::KeyOnBoundary,
            Self::VersionMismatch { .. } => Reason::CatalogVersionMismatch,
        }
    }
}

impl HookCommandError {
    /// Reason of the RPC error. No wildcard: a new error needs a decision.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::HookName(_)
            | Self::HookOnEvents(_)
            | Self::HookConfigTooLong(_)
            | Self::TooManyAdvances(_) => Reason::InvalidArgument,
            Self::HookExists(_) => Reason::HookExists,
            Self::HookBeingRemoved(_) => Reason::TableBusy,
            Self::HookNotFound(_) => Reason::HookNotFound,
            Self::TooManyHooks(_) | Self::TooManyDurableHooks(_) => Reason::Unsupported,
        }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let refusal = Self::new(error.reason(), error.to_string());
        match error {
            CommandError::Group(GroupCommandError::NoGroups)
            | CommandError::Node(NodeCommandError::ObjectStoreUnknown)
            | CommandError::OutcomesFull(_)
            | CommandError::StaleTerm { .. }
            | CommandError::NotBootstrapped => refusal.retry_after(Duration::from_millis(500)),
            _ => refusal,
        }
    }
}
