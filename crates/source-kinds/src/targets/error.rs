//! Errors of targets.

use std::error::Error;

use crate::SourceError;
use crate::error::causes;

/// Reason why a target cannot be used. Each message names the URL or the directory, and the problem or the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The directory or the store cannot be reached or written, or refuses the credentials. A later attempt may succeed.
    /// The outcome of a write is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// The node does not permit the directory, the host or the credentials.
    #[error("{0}")]
    NotPermitted(String),
    /// The configuration is invalid.
    #[error("{0}")]
    BadConfig(String),
    /// The name of an object is invalid, or an object is larger than its reader permits.
    #[error("{0}")]
    Invalid(String),
}

impl TargetError {
    /// Returns the error of a target among the causes of an error, such as that of a writer. The texts of the other
    /// causes repeat it.
    pub fn find_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

impl From<SourceError> for TargetError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Unreadable(text) | SourceError::Changed(text) => Self::Unavailable(text),
            SourceError::NotPermitted(text) => Self::NotPermitted(text),
            SourceError::BadConfig(text) => Self::BadConfig(text),
            SourceError::Mismatch(text) => Self::Invalid(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn target_error_is_found_behind_other_errors() {
        let error = TargetError::Unavailable("x".to_owned());
        assert_eq!(TargetError::find_in(&error), Some(&error));
        // As a store of writers returns it.
        let generic = object_store::Error::Generic { store: "s", source: error.clone().into() };
        let outer = io::Error::from(generic);
        assert_eq!(TargetError::find_in(&outer), Some(&error));
        assert_eq!(TargetError::find_in(&io::Error::other("x")), None);
    }
}
