//! Read policies: how since follows upper.

#[cfg(test)]
mod tests;

use tidewater_common::ids::Epoch;

use crate::span::{epoch_before, rounded_down};

/// Maximum number of [`ReadPolicy::Multiple`] around one another.
pub(crate) const MAX_POLICY_DEPTH: usize = 4;

/// Maximum number of parts of a policy: those of all its [`ReadPolicy::Multiple`], which are not counted themselves.
pub(crate) const MAX_POLICY_PARTS: usize = 16;

/// Rule for the oldest epoch that remains readable. [`Self::validate`] checks it; other code relies on that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadPolicy {
    /// No epoch: only capabilities and holds keep any. Its table is dropped once it has no capabilities and no exports.
    Empty,
    /// Since does not advance.
    NoPolicy,
    /// Epochs from this one on.
    ValidFrom(Epoch),
    /// Epochs of the time before upper.
    LagWriteFrontier {
        /// Length of that time in milliseconds; 0: no epoch.
        lag_ms: u64,
        /// Its begin is rounded down to a multiple of this number of milliseconds since the Unix epoch, so that since moves
        /// in steps; 0 and 1: not rounded.
        granularity_ms: u64,
    },
    /// All that one of the parts keeps.
    Multiple(Vec<ReadPolicy>),
}

/// Error of a read policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// [`ReadPolicy::Empty`] as a part of a [`ReadPolicy::Multiple`], where it has no effect.
    #[error("the empty read policy cannot be a part of a combined one: leave it out")]
    EmptyPart,
    /// A [`ReadPolicy::Multiple`] without parts.
    #[error("a combined read policy has no parts: name at least one")]
    Empty,
    /// More than [`MAX_POLICY_PARTS`] parts.
    #[error("the read policy has more than {} parts", MAX_POLICY_PARTS)]
    TooManyParts,
    /// More than [`MAX_POLICY_DEPTH`] of [`ReadPolicy::Multiple`] around one another.
    #[error("combined read policies are nested more than {} deep", MAX_POLICY_DEPTH)]
    TooDeep,
    /// The epoch of [`ReadPolicy::ValidFrom`] is too late.
    #[error("a read policy cannot be valid from epoch {epoch}: use epoch {limit} at most")]
    BeyondLimit {
        /// Epoch of the policy.
        epoch: Epoch,
        /// Greatest epoch that it may have.
        limit: Epoch,
    },
    /// Two parts are [`ReadPolicy::ValidFrom`] with different epochs.
    #[error(
        "parts of the read policy are valid from epoch {first} and from epoch {second}: use one of them"
    )]
    Contradiction {
        /// Epoch of the first part.
        first: Epoch,
        /// Another one.
        second: Epoch,
    },
    /// [`ReadPolicy::NoPolicy`] beside another part, which then has no effect.
    #[error(
        "a part of the read policy keeps all epochs, so that other parts have no effect: use it alone"
    )]
    NoPolicyBesideOthers,
}

impl ReadPolicy {
    /// Returns the epoch that the policy implies: epochs below it need not be readable. `None`: since stays where it is.
    /// It does not go back as upper rises.
    pub fn implied(&self, upper: Epoch) -> Option<Epoch> {
        match self {
            Self::Empty => Some(upper),
            Self::NoPolicy => None,
            Self::ValidFrom(epoch) => Some(*epoch),
            Self::LagWriteFrontier { lag_ms, granularity_ms } => {
                Some(rounded_down(epoch_before(upper, *lag_ms), *granularity_ms))
            }
            Self::Multiple(parts) => {
                // A part without an epoch keeps most.
                let epochs: Option<Vec<_>> = parts.iter().map(|part| part.implied(upper)).collect();
                epochs?.into_iter().min()
            }
        }
    }

    /// Checks the policy. `limit`: greatest epoch of [`Self::ValidFrom`].
    ///
    /// # Errors
    /// [`PolicyError`] names the first problem.
    pub fn validate(&self, limit: Epoch) -> Result<(), PolicyError> {
        let mut found = PolicyParts { limit, parts: 0, without_policy: 0, valid_from: None };
        found.add(self, 0)?;
        if found.without_policy > 0 && found.without_policy < found.parts {
            return Err(PolicyError::NoPolicyBesideOthers);
        }
        Ok(())
    }
}

/// Parts of a policy, as far as they were checked.
#[derive(Debug)]
struct PolicyParts {
    limit: Epoch,
    /// Number of parts.
    parts: usize,
    /// Number of parts that are [`ReadPolicy::NoPolicy`].
    without_policy: usize,
    /// Epoch of the first part that is [`ReadPolicy::ValidFrom`].
    valid_from: Option<Epoch>,
}

impl PolicyParts {
    /// Adds a policy that has `depth` others around it. Recursion and work are bounded by the limits of a policy.
    fn add(&mut self, policy: &ReadPolicy, depth: usize) -> Result<(), PolicyError> {
        if let ReadPolicy::Multiple(parts) = policy {
            if depth >= MAX_POLICY_DEPTH {
                return Err(PolicyError::TooDeep);
            }
            if parts.is_empty() {
                return Err(PolicyError::Empty);
            }
            return parts.iter().try_for_each(|part| self.add(part, depth + 1));
        }
        if *policy == ReadPolicy::Empty && depth > 0 {
            return Err(PolicyError::EmptyPart);
        }
        self.parts += 1;
        if self.parts > MAX_POLICY_PARTS {
            return Err(PolicyError::TooManyParts);
        }
        match policy {
            ReadPolicy::NoPolicy => self.without_policy += 1,
            ReadPolicy::ValidFrom(epoch) => self.add_valid_from(*epoch)?,
            ReadPolicy::Empty | ReadPolicy::LagWriteFrontier { .. } | ReadPolicy::Multiple(_) => {}
        }
        Ok(())
    }

    fn add_valid_from(&mut self, epoch: Epoch) -> Result<(), PolicyError> {
        let limit = self.limit;
        if epoch > limit {
            return Err(PolicyError::BeyondLimit { epoch, limit });
        }
        match self.valid_from {
            Some(first) if first != epoch => {
                Err(PolicyError::Contradiction { first, second: epoch })
            }
            _ => {
                self.valid_from = Some(epoch);
                Ok(())
            }
        }
    }
}
