//! Errors of the object store: operation, object and cause.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::disk::is_full;

/// Operation of the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Create an object if the name is free.
    PutIfAbsent,
    /// Write an object, replacing any existing one.
    Put,
    /// Write an object in parts.
    Upload,
    /// Read an object.
    Get,
    /// Read size and time of an object.
    Head,
    /// List the objects below a prefix.
    List,
    /// Delete an object.
    Delete,
}

/// Error of the object store. After a write, none of these means that nothing was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The URL cannot be used.
    #[error("object store URL {url:?}: {detail}")]
    Url {
        /// The URL as given.
        url: String,
        /// The problem and the valid forms.
        detail: String,
    },
    /// The directory of a local store cannot be used.
    #[error("object store directory {path}: {detail}")]
    Directory {
        /// Path of the directory.
        path: String,
        /// The problem.
        detail: String,
    },
    /// The object does not exist.
    #[error("{operation} {object}: no such object")]
    NotFound {
        /// Failed operation.
        operation: Operation,
        /// Name of the object.
        object: String,
    },
    /// The store reports that the name is taken.
    #[error("{operation} {object}: the name is taken")]
    Conflict {
        /// Failed operation.
        operation: Operation,
        /// Name of the object.
        object: String,
    },
    /// Any other error of the store.
    #[error("{operation} {object}: {source}")]
    Store {
        /// Failed operation.
        operation: Operation,
        /// Name of the object.
        object: String,
        /// The store's error.
        source: Arc<object_store::Error>,
    },
    /// No answer before the deadline.
    #[error("{operation} {object}: no answer within {} ms", limit.as_millis())]
    Deadline {
        /// Failed operation.
        operation: Operation,
        /// Name of the object.
        object: String,
        /// The deadline of the call.
        limit: Duration,
    },
    /// The object is larger than any that this release writes under its name.
    #[error("get {object}: it has {size} bytes, the maximum is {limit}")]
    TooLarge {
        /// Name of the object.
        object: String,
        /// Size of the object in bytes.
        size: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The object is shorter than the requested range.
    #[error("get {object}: expected {expected} bytes, got {actual}")]
    Short {
        /// Name of the object.
        object: String,
        /// Bytes requested.
        expected: u64,
        /// Bytes received.
        actual: usize,
    },
}

impl StorageError {
    pub(super) fn store(operation: Operation, object: String, source: object_store::Error) -> Self {
        match source {
            // For a write or a listing this means that the bucket does not exist.
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

    pub(super) fn deadline(operation: Operation, object: String, limit: Duration) -> Self {
        Self::Deadline { operation, object, limit }
    }

    /// Returns whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Returns whether the store reports that the name is taken.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Returns whether the disk of a local store is full.
    pub fn is_full(&self) -> bool {
        let Self::Store { source, .. } = self else { return false };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = cause {
            if error.downcast_ref::<std::io::Error>().is_some_and(is_full) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Returns whether a retry may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Directory { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::TooLarge { .. }
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
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn full_disk_is_distinguished_from_other_errors() {
        let failed = |kind: ErrorKind| {
            let source: Box<dyn std::error::Error + Send + Sync> =
                std::io::Error::from(kind).into();
            let source = object_store::Error::Generic { store: "local", source };
            StorageError::store(Operation::Put, "o".to_owned(), source).is_full()
        };
        assert!(failed(ErrorKind::StorageFull) && failed(ErrorKind::QuotaExceeded));
        assert!(!failed(ErrorKind::PermissionDenied));
        assert!(!StorageError::deadline(Operation::Put, "o".to_owned(), Duration::ZERO).is_full());
    }
}
