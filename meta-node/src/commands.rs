//! Commands of group 0: validation of each command, and the resulting [`CatalogChange`].
//!
//! All inputs of a decision are in the command or in the state (never a clock or a random number), so
//! every replica makes the same decision. Validation only reads the state and completes before any
//! modification.

mod alter_table;
mod balance;
mod bootstrap;
mod clone_table;
mod collection_ids;
pub(crate) mod collections;
mod cursors;
pub(crate) mod drains;
mod error;
pub(crate) mod groups;
mod hook_procedures;
mod hooks;
mod levels;
mod loads;
mod member_replacement;
mod new_table;
mod nodes;
mod observations;
pub(crate) mod procedures;
pub(crate) mod refreshes;
mod requests;
mod reserved;
mod tables;
mod time;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, NodeId, TableId, Term};
use tidewater_proto::v1::{self, meta_command::Kind, meta_reply};

pub(crate) use self::cursors::MAX_ADVANCES;
pub use self::error::{
    CollectionCommandError, CommandError, GroupCommandError, HookCommandError, NodeCommandError,
    RefreshCommandError, RouteCommandError,
};
pub(crate) use self::levels::{command_level, must_support};
pub use self::nodes::members_change;
pub(crate) use self::observations::MAX_OBSERVATIONS;
use crate::catalog::{CatalogChange, ChangeEffects, MetaState};

/// Rules of validation under which a command was proposed: `MetaCommand.rules`. A new rule gets a new
/// number, so that the log of an older release replays to the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rules(pub(crate) u32);

impl Rules {
    /// Rules of the commands that a cluster proposes from each feature level on. New rules need a new
    /// level: a release that does not know them would apply a command by those that it knows.
    const SINCE: [(FeatureLevel, Self); 3] = [
        (FeatureLevel::FIRST, Self(1)),
        (FeatureLevel::new(2), Self(2)),
        (FeatureLevel::new(4), Self(3)),
    ];

    /// Returns the rules of the commands that a cluster at this level proposes.
    pub(crate) fn at(level: FeatureLevel) -> Self {
        let known = Self::SINCE.iter().rev().find(|(since, _)| *since <= level);
        known.map_or(Self(0), |(_, rules)| *rules)
    }

    /// Returns whether a node is the home of at most one live group.
    fn has_unique_homes(self) -> bool {
        self >= Self(1) && !self.has_counted_homes()
    }

    /// Returns whether a node is the home of any number of groups, which the creation of another one names.
    fn has_counted_homes(self) -> bool {
        self >= Self(3)
    }

    /// Returns whether a repeated request must have the same arguments.
    fn has_compared_arguments(self) -> bool {
        self >= Self(1)
    }

    /// Returns whether the oldest outcomes make room for new ones.
    fn has_outcome_eviction(self) -> bool {
        self >= Self(1)
    }

    /// Returns whether the cursors of a hook are created and deleted in steps of some regions each.
    fn has_hook_procedures(self) -> bool {
        self >= Self(2)
    }

    /// Returns whether watchers receive no change when a load gets a new deadline, which they do not see.
    fn has_unpublished_deadlines(self) -> bool {
        self >= Self(2)
    }
}

/// Reply of an accepted command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandReply {
    /// Success without a value.
    Done,
    /// Id of the registered node.
    Node(NodeId),
    /// Id of the created group.
    Group(GroupId),
    /// Id of the created, changed or dropped table.
    Table(TableId),
}

/// Validates and applies a command. After an error, the state is unchanged.
pub fn apply(
    state: &mut MetaState,
    term: Term,
    command: v1::MetaCommand,
) -> Result<(CommandReply, ChangeEffects), CommandError> {
    if matches!(command.kind, Some(Kind::Bench(_))) {
        return Ok((CommandReply::Done, ChangeEffects::default()));
    }
    let rules = Rules(command.rules);
    let (reply, mut change) = decide(state, term, command)?;
    requests::make_room(state, rules, &mut change);
    apply_change(state, change).map(|effects| (reply, effects))
}

/// Applies a change that was decided on this state.
pub fn apply_change(
    state: &mut MetaState,
    change: CatalogChange,
) -> Result<ChangeEffects, CommandError> {
    let prepared = state.prepare(change)?;
    Ok(state.absorb(prepared))
}

fn decide(
    state: &MetaState,
    term: Term,
    command: v1::MetaCommand,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let level = state.header().feature_level;
    // The kind counts, too: every replica rejects a command that its proposer has stamped too low.
    let of_kind = command.kind.as_ref().map_or(FeatureLevel::FIRST, command_level);
    let needed = of_kind.max(FeatureLevel::new(command.feature_level));
    if needed > level {
        return Err(CommandError::FeatureLevel { needed, level });
    }
    if command.decided_term != 0 && command.decided_term != term.get() {
        return Err(CommandError::StaleTerm { decided: Term(command.decided_term), entry: term });
    }
    let rules = Rules(command.rules);
    let kind = command.kind.ok_or(CommandError::UnknownCommand)?;
    if let Kind::Bootstrap(command) = kind {
        return bootstrap::decide(state, &command).map(done);
    }
    if state.header().cluster_id.is_none() {
        return Err(CommandError::NotBootstrapped);
    }
    match kind {
        Kind::RegisterNode(command) => nodes::register(state, &command),
        Kind::UpdateNode(command) => nodes::update(state, &command).map(done),
        Kind::SetNodeState(command) => nodes::set_state(state, &command).map(done),
        Kind::SetNodeDraining(command) => drains::set_draining(state, &command).map(done),
        Kind::RemoveNode(command) => drains::remove(state, &command).map(done),
        Kind::RecordObservations(command) => observations::record(state, &command).map(done),
        Kind::CreateGroup(command) => groups::create(state, &command, rules),
        Kind::ActivateGroup(command) => groups::activate(state, &command).map(done),
        Kind::AbandonGroup(command) => groups::abandon(state, &command).map(done),
        Kind::ReportGroup(command) => groups::report(state, &command).map(done),
        Kind::SetGroupRetiring(command) => groups::set_retiring(state, &command).map(done),
        Kind::RetireGroup(command) => groups::retire(state, &command).map(done),
        Kind::SetBalance(command) => balance::set(state, &command).map(done),
        Kind::ReplaceMetaMember(command) => member_replacement::replace(state, &command).map(done),
        Kind::EndMemberReplacement(command) => Ok(done(member_replacement::end(state, &command))),
        Kind::CreateTable(command) => tables::create(state, &command, rules),
        Kind::ActivateTable(command) => tables::activate(state, &command).map(done),
        Kind::BeginDropTable(command) => tables::begin_drop(state, &command, rules),
        Kind::FinishDropTable(command) => tables::finish_drop(state, &command).map(done),
        Kind::ReserveTable(command) => reserved::reserve(state, &command),
        Kind::SaveRoutes(command) => reserved::save(state, &command, rules),
        Kind::AddHook(command) => hooks::add(state, &command, rules),
        Kind::SetHookPaused(command) => hooks::set_paused(state, &command).map(done),
        Kind::RemoveHook(command) => hooks::remove(state, &command, rules),
        Kind::StepHook(command) => hook_procedures::step(state, &command).map(done),
        Kind::AdvanceCursors(command) => cursors::advance(state, &command).map(done),
        Kind::BeginAlterTable(command) => alter_table::begin_alter(state, &command, rules),
        Kind::BeginTruncateTable(command) => alter_table::begin_truncate(state, &command, rules),
        Kind::FinishTableChange(command) => alter_table::finish(state, &command).map(done),
        Kind::CloneTable(command) => clone_table::begin(state, &command, rules),
        Kind::BeginLoad(command) => loads::begin(state, &command, rules),
        Kind::LoadOpened(command) => loads::mark_opened(state, &command).map(done),
        Kind::EndLoad(command) => loads::end(state, &command),
        Kind::ExpireLoad(command) => loads::expire(state, &command).map(done),
        Kind::AdvanceTime(command) => Ok(done(time::advance(state, term, &command))),
        Kind::BeginProcedure(command) => procedures::begin(state, &command),
        Kind::AdvanceProcedure(command) => procedures::advance(state, &command).map(done),
        Kind::AbandonProcedure(command) => procedures::abandon(state, &command).map(done),
        Kind::AlterRefresh(command) => refreshes::alter(state, &command).map(done),
        Kind::ChangeCollections(command) => collections::change(state, &command).map(done),
        Kind::AllocateIds(command) => collection_ids::allocate(state, &command, rules),
        Kind::CreateCollections(command) => collection_ids::create(state, &command).map(done),
        Kind::DropCollections(command) => collection_ids::drop_unused(state, &command).map(done),
        Kind::RaiseFeatureLevel(command) => levels::raise(state, &command).map(done),
        Kind::Bootstrap(_) | Kind::Bench(_) => Ok(done(CatalogChange::default())),
    }
}

fn done(change: CatalogChange) -> (CommandReply, CatalogChange) {
    (CommandReply::Done, change)
}

impl From<CommandReply> for meta_reply::Outcome {
    fn from(reply: CommandReply) -> Self {
        match reply {
            CommandReply::Done => Self::Done(true),
            CommandReply::Node(id) => Self::NodeId(id.get()),
            CommandReply::Group(id) => Self::GroupId(id.get()),
            CommandReply::Table(id) => Self::TableId(id.get()),
        }
    }
}

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
pub(crate) mod model_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
