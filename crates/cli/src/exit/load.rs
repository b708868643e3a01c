//! Exit statuses of `load --create` and of loads from standard input.

use super::Failure;
use crate::load::infer::error::InferError;
use crate::load::stdin::StdinError;
use crate::load::verify::VerifyError;

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        match error {
            InferError::Load(error) => error.into(),
            error => Self::other(error.to_string()),
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Load(error) => error.into(),
            error @ (VerifyError::NotUnique { .. } | VerifyError::Key { .. }) => {
                Self::other(error.to_string())
            }
        }
    }
}

impl From<StdinError> for Failure {
    fn from(error: StdinError) -> Self {
        match error {
            StdinError::Load(error) => error.into(),
            StdinError::Twice(_) => Self::usage(error.to_string()),
            StdinError::Read(_) | StdinError::Write { .. } => Self::other(error.to_string()),
        }
    }
}
