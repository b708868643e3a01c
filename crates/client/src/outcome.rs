//! Classification of failed attempts: the outcome of a write (*failed* or *unknown*) and the retry
//! action.
//!
//! A write has *failed* only if every attempt was answered, and each response guarantees that the
//! attempt has not taken effect and never will. One attempt with an unknown effect (a lost response,
//! a timeout, a leader that lost its leadership) makes the outcome *unknown* permanently: that
//! attempt may still take effect later, regardless of later responses. Only a successful retry
//! settles it: writes take effect once, so the success holds for all attempts.

use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;

/// Action after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAction {
    /// Wait, then call the same node again.
    Repeat,
    /// Like [`RetryAction::Retry`], but only a few times: this is more likely a fault than a temporary
    /// state.
    RepeatFew,
    /// Another node leads, or this one cannot respond: wait, then call the leader.
    FindLeader,
    /// Refresh the catalog: the routes or the schema of the call are out of date.
    RefreshCatalog,
    /// Continue with a new producer: the region does not know this one.
    NewProducer,
    /// Stop: a retry cannot help.
    GiveUp,
}

/// Maximum number of attempts that end with [`RetryAction::RetryFew`].
pub const MAX_FAULTS: u32 = 5;

/// Returns the action that an RPC error calls for.
#[must_use]
pub fn retry_action(refusal: &Refusal) -> RetryAction {
    // No wildcard: a new reason does not compile until its action is decided.
    match refusal.reason {
        Reason::Overloaded
        | Reason::DiskFull
        | Reason::RouteWriteFenced
        | Reason::RegionLoading
        | Reason::SchemaVersionBehind => RetryAction::Retry,
        Reason::NoDataNodes | Reason::MembershipBusy | Reason::ObjectStoreUnavailable => {
            match refusal.retry_after {
                Some(_) => RetryAction::Retry,
                None => RetryAction::Stop,
            }
        }
        Reason::Unspecified | Reason::Internal | Reason::Corrupt => RetryAction::RetryFew,
        Reason::NotLeader
        | Reason::LeadershipLost
        | Reason::GroupNotHosted
        | Reason::WrongNode
        | Reason::NodeRemoved
        | Reason::NotBootstrapped
        | Reason::DeadlineExceeded
        | Reason::Unavailable
        | Reason::ShuttingDown => RetryAction::FindLeader,
        Reason::KeyOutsideRegion
        | Reason::RegionNotFound
        | Reason::GroupNotFound
        | Reason::RouteMoved
        | Reason::RegionFenced
        | Reason::SchemaVersionStale => RetryAction::RefreshCatalog,
        Reason::ProducerForgotten | Reason::SerialOutOfOrder => RetryAction::NewProducer,
        Reason::InvalidArgument
        | Reason::SchemaMismatch
        | Reason::MessageTooLarge
        | Reason::TableNotFound
        | Reason::TableExists
        | Reason::NodeNotFound
        | Reason::MemberNotFound
        | Reason::MemberExists
        | Reason::HookNotFound
        | Reason::HookExists
        | Reason::WrongCluster
        | Reason::RoleMismatch
        | Reason::ObjectStoreMismatch
        | Reason::PeersMismatch
        | Reason::AlreadyBootstrapped
        | Reason::MembershipStale
        | Reason::CatalogVersionMismatch
        | Reason::TableBusy
        | Reason::VersionGone
        | Reason::LoadEnded
        | Reason::HandleNotFound
        | Reason::JobNotFound
        | Reason::JobExists
        | Reason::BadPlan
        | Reason::BadPlugin
        | Reason::InputsGone
        | Reason::BelowFloor
        | Reason::JobCancelled
        | Reason::NoCompactors
        | Reason::JobTooLarge
        | Reason::Unsupported => RetryAction::Stop,
    }
}

/// A failed attempt of a call.
#[derive(Debug, Clone)]
pub struct FailedAttempt {
    /// The RPC error, or its equivalent for an attempt without a response.
    pub refusal: Refusal,
    /// Effect that the attempt may have had.
    pub effect: Effect,
    /// Set when no node responded: the connection failed, broke, or timed out.
    pub unanswered: bool,
}

impl FailedAttempt {
    /// Returns the action after this attempt.
    #[must_use]
    pub fn retry_action(&self) -> RetryAction {
        if self.unanswered { RetryAction::FindLeader } else { retry_action(&self.refusal) }
    }
}

/// Failed attempts of one call.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    made: u32,
    faults: u32,
    unknown: bool,
    last: Option<Refusal>,
}

/// Outcome of a write without a successful attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The write has not taken effect and never will.
    Failed,
    /// The write may have taken effect, or may still do so.
    Unknown,
}

impl Attempts {
    /// Records a failed attempt.
    pub fn record(&mut self, failure: &FailedAttempt) {
        self.made = self.made.saturating_add(1);
        self.unknown |= match failure.effect {
            Effect::None => false,
            Effect::Unknown => true,
        };
        if failure.retry_action() == RetryAction::RetryFew {
            self.faults = self.faults.saturating_add(1);
        }
        self.last = Some(failure.refusal.clone());
    }

    /// Returns the number of attempts.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Returns whether there were too many faults for another retry.
    pub fn has_too_many_faults(&self) -> bool {
        self.faults >= MAX_FAULTS
    }

    /// Returns whether any attempt may have taken effect.
    pub fn any_unknown(&self) -> bool {
        self.unknown
    }

    /// Returns the outcome if no further attempt is made.
    #[must_use]
    pub fn outcome(&self) -> WriteOutcome {
        if self.unknown { WriteOutcome::Unknown } else { WriteOutcome::Failed }
    }

    /// Returns the last RPC error.
    pub fn last(&self) -> Option<&Refusal> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answered(reason: Reason) -> FailedAttempt {
        let refusal = Refusal::new(reason, "x");
        FailedAttempt { effect: refusal.effect(), refusal, unanswered: false }
    }

    fn lost() -> FailedAttempt {
        FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, "connection reset"),
            effect: Effect::Unknown,
            unanswered: true,
        }
    }

    fn not_connected() -> FailedAttempt {
        FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, "connection refused"),
            effect: Effect::None,
            unanswered: true,
        }
    }

    fn outcome(failures: &[FailedAttempt]) -> WriteOutcome {
        let mut attempts = Attempts::default();
        for failure in failures {
            attempts.record(failure);
        }
        attempts.outcome()
    }

    #[test]
    fn write_fails_only_if_no_attempt_had_an_effect() {
        use WriteOutcome::{Failed, Unknown};
        let table: &[(&[FailedAttempt], WriteOutcome)] = &[
            (&[], Failed),
            (&[answered(Reason::NotLeader)], Failed),
            (&[answered(Reason::Overloaded), answered(Reason::Overloaded)], Failed),
            (&[not_connected(), answered(Reason::NotLeader)], Failed),
            (&[lost()], Unknown),
            (&[answered(Reason::LeadershipLost)], Unknown),
            (&[answered(Reason::DeadlineExceeded)], Unknown),
            (&[answered(Reason::Internal)], Unknown),
            // A later definite error does not revoke an earlier unknown effect.
            (&[lost(), answered(Reason::NotLeader)], Unknown),
            (&[lost(), answered(Reason::ProducerForgotten)], Unknown),
            (&[lost(), answered(Reason::InvalidArgument)], Unknown),
            (&[lost(), not_connected()], Unknown),
            (&[answered(Reason::ProducerForgotten)], Failed),
            (&[answered(Reason::InvalidArgument)], Failed),
        ];
        for (index, (failures, expected)) in table.iter().enumerate() {
            assert_eq!(outcome(failures), *expected, "case {index}");
        }
    }

    #[test]
    fn reasons_with_unknown_effect_are_retried() {
        for number in 0..200 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let refusal = Refusal::new(reason, "x");
            if refusal.effect() == Effect::Unknown {
                // An unknown outcome is retried: only a success settles it.
                assert_ne!(retry_action(&refusal), RetryAction::Stop, "{reason:?}");
            }
        }
    }

    #[test]
    fn reasons_have_their_retry_actions() {
        for (reason, expected) in [
            (Reason::NotLeader, RetryAction::FindLeader),
            (Reason::Overloaded, RetryAction::Retry),
            (Reason::KeyOutsideRegion, RetryAction::RefreshCatalog),
            (Reason::RegionNotFound, RetryAction::RefreshCatalog),
            (Reason::ProducerForgotten, RetryAction::NewProducer),
            (Reason::InvalidArgument, RetryAction::Stop),
            (Reason::NoDataNodes, RetryAction::Stop),
            (Reason::Internal, RetryAction::RetryFew),
        ] {
            assert_eq!(retry_action(&Refusal::new(reason, "x")), expected, "{reason:?}");
        }
        let timed = Refusal::new(Reason::NoDataNodes, "x").retry_after(Duration::from_millis(1));
        assert_eq!(retry_action(&timed), RetryAction::Retry);
    }

    #[test]
    fn unanswered_attempts_find_another_leader() {
        let mut attempts = Attempts::default();
        for _ in 0..2 * MAX_FAULTS {
            attempts.record(&lost());
        }
        assert_eq!(lost().retry_action(), RetryAction::FindLeader);
        assert!(!attempts.has_too_many_faults());
        for _ in 0..MAX_FAULTS {
            attempts.record(&answered(Reason::Internal));
        }
        assert!(attempts.has_too_many_faults());
    }
}
