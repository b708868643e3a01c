//! What a hook reports, and what the registry refuses.

/// What went wrong in a hook, in words: it is counted, logged with the hook's name, and shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct HookError {
    detail: String,
}

impl HookError {
    /// In these words. Never a secret: they go to the log.
    pub fn new(detail: impl std::fmt::Display) -> Self {
        Self { detail: detail.to_string() }
    }
}

/// Why a hook was not registered: nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookSetupError {
    /// Nothing makes hooks of this kind.
    #[error("hook {name}: unknown kind {kind:?}; known are {known}")]
    UnknownKind {
        /// The hook.
        name: String,
        /// What was asked for.
        kind: String,
        /// What there is, separated by commas.
        known: String,
    },
    /// The kind does not take this configuration.
    #[error("hook {name}: the configuration of kind {kind} is bad: {detail}")]
    BadConfig {
        /// The hook.
        name: String,
        /// Its kind.
        kind: String,
        /// What is wrong, and what is expected.
        detail: String,
    },
    /// A hook has this name already.
    #[error("a hook named {name} is registered already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Too many at once.
    #[error("hook {name} is one too many: at most {most} are made for one region")]
    TooMany {
        /// The first that has no place.
        name: String,
        /// How many may be made.
        most: usize,
    },
    /// A kind has this name already.
    #[error("a hook kind named {kind} is registered already")]
    KindTaken {
        /// The kind.
        kind: String,
    },
}
