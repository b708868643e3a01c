//! Errors of hooks and of their registration.

/// An error that a hook reports, as text: it is counted, logged with the hook's name, and shown to
/// operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct HookError {
    detail: String,
}

impl HookError {
    /// Creates an error from its text. The text must not contain secrets: it is logged.
    pub fn new(detail: impl std::fmt::Display) -> Self {
        Self { detail: detail.to_string() }
    }
}

/// Reasons why a hook or a kind is not registered; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookSetupError {
    /// No kind has this name.
    #[error("hook {name}: unknown kind {kind:?}; known are {known}")]
    UnknownKind {
        /// Name of the hook.
        name: String,
        /// The requested kind.
        kind: String,
        /// The known kinds, separated by commas.
        known: String,
    },
    /// The kind rejects this configuration.
    #[error("hook {name}: invalid configuration for kind {kind}: {detail}")]
    BadConfig {
        /// Name of the hook.
        name: String,
        /// Kind of the hook.
        kind: String,
        /// The problem and the expected value.
        detail: String,
    },
    /// Another hook has this name.
    #[error("a hook named {name} is already registered")]
    NameTaken {
        /// The duplicate name.
        name: String,
    },
    /// The list has too many hooks.
    #[error("hook {name} exceeds the limit of {limit} hooks for one region")]
    TooMany {
        /// The first hook beyond the limit.
        name: String,
        /// Maximum number of hooks.
        limit: usize,
    },
    /// Another kind has this name.
    #[error("a hook kind named {kind} is already registered")]
    KindTaken {
        /// The duplicate kind.
        kind: String,
    },
}
