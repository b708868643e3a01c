//! Errors of commands on hooks and their cursors.

use tidewater_common::quote::quoted;

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookCommandError {
    /// No hook has this name.
    #[error("hook {name} does not exist", name = quoted(.0))]
    HookNotFound(String),
    /// A hook has this name.
    #[error("hook {name} already exists", name = quoted(.0))]
    HookExists(String),
    /// An invalid hook name.
    #[error("{name} is not a hook name: use 1 to 100 letters, digits, '-', '_' and '.'", name = quoted(.0))]
    HookName(String),
    /// A hook that records events about a table which holds events: each one would cause further ones.
    #[error(
        "table {name} holds events, and a hook of kind `events` would record its own events there: use the hook on other \
         tables, or a hook of another kind on this one",
        name = quoted(.0)
    )]
    HookOnEvents(String),
    /// The configuration of a hook is too long.
    #[error("the configuration of a hook is limited to {0} bytes")]
    HookConfigTooLong(usize),
    /// Name of a hook that is being removed.
    #[error("hook {0} is being removed")]
    HookBeingRemoved(String),
    /// Too many hooks: every node calls each hook for every event.
    #[error("the cluster already has {0} hooks, which is the maximum")]
    TooManyHooks(usize),
    /// Too many durable hooks: each has a cursor for each region.
    #[error("the cluster already has {0} durable hooks, which is the maximum")]
    TooManyDurableHooks(usize),
    /// Too many cursor updates in one command.
    #[error("{0} cursors in one request are too many (maximum {max})", max = crate::commands::MAX_ADVANCES)]
    TooManyAdvances(usize),
}
