//! What the object store was asked, on which object, and why it did not answer.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// What was asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Create if the name is free.
    PutIfAbsent,
    /// Write over whatever is there.
    Put,
    /// Write in parts.
    Upload,
    /// Read.
    Get,
    /// Size and time.
    Head,
    /// Names below a prefix.
    List,
    /// Delete.
    Delete,
}

/// Why the store did not do what it was asked. After a write, none of these says that nothing was
/// stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The URL cannot be used.
    #[error("object store URL {url:?}: {detail}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// The directory of a local store cannot be used.
    #[error("object store directory {path}: {detail}")]
    Directory {
        /// The directory.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no such object.
    #[error("{operation} {object}: no such object")]
    NotFound {
        /// What was asked.
        operation: Operation,
        /// On which object.
        object: String,
    },
    /// The store says that the name is taken.
    #[error("{operation} {object}: the name is taken")]
    Conflict {
        /// What was asked.
        operation: Operation,
        /// On which object.
        object: String,
    },
    /// The store failed or refused.
    #[error("{operation} {object}: {source}")]
    Store {
        /// What was asked.
        operation: Operation,
        /// On which object.
        object: String,
        /// The store's answer.
        source: Arc<object_store::Error>,
    },
    /// No answer within the limit.
    #[error("{operation} {object}: no answer within {} ms", limit.as_millis())]
    Deadline {
        /// What was asked.
        operation: Operation,
        /// On which object.
        object: String,
        /// The limit.
        limit: Duration,
    },
    /// The object is shorter than what was asked of it.
    #[error("get {object}: {wanted} bytes wanted, {got} there")]
    Short {
        /// The object.
        object: String,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that came.
        got: usize,
    },
}

impl StorageError {
    pub(super) fn store(operation: Operation, object: String, source: object_store::Error) -> Self {
        match source {
            // Of a write or a listing it says that there is no such bucket.
            object_store::Error::NotFound { .. }
                if matches!(operation, Operation::Get | Operation::Head | Operation::Delete) =>
            {
                Self::NotFound { operation, object }
            }
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => Self::Conflict { operation, object },
            source => Self::Store { operation, object, source: Arc::new(source) },
        }
    }

    pub(super) fn late(operation: Operation, object: String, limit: Duration) -> Self {
        Self::Deadline { operation, object, limit }
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the store says that the name is taken.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether a local store's disk has no room.
    pub fn is_full(&self) -> bool {
        let Self::Store { source, .. } = self else { return false };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = cause {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Directory { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Short { .. } => false,
            Self::Deadline { .. } => true,
            Self::Store { source, .. } => !matches!(
                source.as_ref(),
                object_store::Error::NotFound { .. }
                    | object_store::Error::NotSupported { .. }
                    | object_store::Error::NotImplemented { .. }
                    | object_store::Error::InvalidPath { .. }
                    | object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::UnknownConfigurationKey { .. }
            ),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PutIfAbsent => "put if absent",
            Self::Put => "put",
            Self::Upload => "upload",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let failed = |kind: ErrorKind| {
            let source: Box<dyn std::error::Error + Send + Sync> =
                std::io::Error::from(kind).into();
            let source = object_store::Error::Generic { store: "local", source };
            StorageError::store(Operation::Put, "o".to_owned(), source).is_full()
        };
        assert!(failed(ErrorKind::StorageFull) && failed(ErrorKind::QuotaExceeded));
        assert!(!failed(ErrorKind::PermissionDenied));
        assert!(!StorageError::late(Operation::Put, "o".to_owned(), Duration::ZERO).is_full());
    }
}
