//! *Failed* or *unknown*: classifies errors of writes and decides the next step.
//!
//! A write has *failed* only when every attempt was answered, and each answer means that the write
//! has not taken effect and never will. One attempt whose effect is unknown (a lost answer, a
//! timeout, a leader that lost its leadership) makes the outcome *unknown* permanently: that attempt
//! may still take effect later, whatever the answers to later attempts are. Only a retry that
//! succeeds resolves it: writes take effect once, so one success covers all attempts.

pub use tidewater_common::reason::RetryAction;
use tidewater_common::refusal::{Effect, Refusal};
pub use tidewater_rpc::FailedAttempt;

/// Attempts of an operation that may end with [`RetryAction::RepeatFew`].
pub const MAX_FAULTS: u32 = 5;

/// History of the unsuccessful attempts of one operation.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    made: u32,
    faults: u32,
    unknown: bool,
    last: Option<FailedAttempt>,
    /// Last error that a node answered with.
    answer: Option<Refusal>,
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
    /// Records an attempt that did not succeed.
    pub fn record(&mut self, failure: &FailedAttempt) {
        self.made = self.made.saturating_add(1);
        self.unknown |= match failure.effect {
            Effect::None => false,
            Effect::Unknown => true,
        };
        if failure.retry_action() == RetryAction::RepeatFew {
            self.faults = self.faults.saturating_add(1);
        }
        if !failure.silent {
            self.answer = Some(failure.refusal.clone());
        }
        self.last = Some(failure.clone());
    }

    /// Returns the number of attempts made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Returns `true` after [`MAX_FAULTS`] faults: a further retry is pointless.
    pub fn too_many_faults(&self) -> bool {
        self.faults >= MAX_FAULTS
    }

    /// Returns `true` if at least one attempt may have taken effect.
    pub fn any_unknown(&self) -> bool {
        self.unknown
    }

    /// Returns the outcome if no further attempt is made.
    #[must_use]
    pub fn outcome(&self) -> WriteOutcome {
        if self.unknown { WriteOutcome::Unknown } else { WriteOutcome::Failed }
    }

    /// Returns the error to report: that of the last attempt. The last attempt before a deadline is short, so
    /// its timeout explains little: the message then also has the last answer.
    #[must_use]
    pub fn cause(&self) -> Option<Refusal> {
        let last = self.last.as_ref()?;
        let mut cause = last.refusal.clone();
        if let Some(answer) = self.answer.as_ref().filter(|_| last.is_timeout()) {
            cause.message = format!("{}; the last answer was: {}", cause.message, answer.message);
        }
        Some(cause)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidewater_proto::v1::Reason;

    use super::*;

    fn answered(reason: Reason) -> FailedAttempt {
        let refusal = Refusal::new(reason, "x");
        FailedAttempt { effect: refusal.effect(), refusal, silent: false }
    }

    fn lost() -> FailedAttempt {
        FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, "connection reset"),
            effect: Effect::Unknown,
            silent: true,
        }
    }

    fn timed_out() -> FailedAttempt {
        FailedAttempt {
            refusal: Refusal::new(Reason::DeadlineExceeded, "n did not answer within 1s"),
            effect: Effect::Unknown,
            silent: true,
        }
    }

    fn not_connected() -> FailedAttempt {
        FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, "connection refused"),
            effect: Effect::None,
            silent: true,
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
    fn write_fails_only_if_every_attempt_had_no_effect() {
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
            // A later definite error does not resolve an earlier unknown effect.
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
    fn unknown_effects_are_always_retried() {
        for number in 0..200 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let refusal = Refusal::new(reason, "x");
            if refusal.effect() == Effect::Unknown {
                // Only a retry that succeeds resolves an unknown outcome.
                assert_ne!(refusal.retry_action(), RetryAction::Stop, "{reason:?}");
            }
        }
    }

    #[test]
    fn reasons_determine_the_retry_action() {
        for (reason, expected) in [
            (Reason::NotLeader, RetryAction::FindLeader),
            (Reason::Overloaded, RetryAction::Repeat),
            (Reason::KeyOutsideRegion, RetryAction::RefreshCatalog),
            (Reason::RegionNotFound, RetryAction::RefreshCatalog),
            (Reason::ProducerForgotten, RetryAction::NewProducer),
            (Reason::InvalidArgument, RetryAction::Stop),
            (Reason::NoDataNodes, RetryAction::Stop),
            (Reason::Internal, RetryAction::RepeatFew),
        ] {
            assert_eq!(Refusal::new(reason, "x").retry_action(), expected, "{reason:?}");
        }
        let with_retry_time =
            Refusal::new(Reason::NoDataNodes, "x").retry_after(Duration::from_millis(1));
        assert_eq!(with_retry_time.retry_action(), RetryAction::Repeat);
    }

    #[test]
    fn missing_answers_lead_to_another_node_without_a_fault() {
        let mut attempts = Attempts::default();
        for _ in 0..2 * MAX_FAULTS {
            attempts.record(&lost());
        }
        assert_eq!(lost().retry_action(), RetryAction::FindLeader);
        assert!(!attempts.too_many_faults());
        for _ in 0..MAX_FAULTS {
            attempts.record(&answered(Reason::Internal));
        }
        assert!(attempts.too_many_faults());
    }

    #[test]
    fn cause_names_the_last_answer_after_a_timeout() {
        let cause = |failures: &[FailedAttempt]| {
            let mut attempts = Attempts::default();
            for failure in failures {
                attempts.record(failure);
            }
            attempts.cause().map(|cause| (cause.reason, cause.message))
        };
        let full = FailedAttempt {
            refusal: Refusal::new(Reason::ObjectStoreUnavailable, "disk full"),
            effect: Effect::None,
            silent: false,
        };
        assert_eq!(cause(&[]), None);
        assert_eq!(
            cause(&[full.clone(), timed_out(), timed_out()]),
            Some((
                Reason::DeadlineExceeded,
                "n did not answer within 1s; the last answer was: disk full".into()
            ))
        );
        assert_eq!(
            cause(&[timed_out()]),
            Some((Reason::DeadlineExceeded, "n did not answer within 1s".into()))
        );
        // Other errors of the transport explain themselves.
        let refused = (Reason::Unavailable, "connection refused".into());
        assert_eq!(cause(&[full.clone(), not_connected()]), Some(refused));
        let answered = (Reason::ObjectStoreUnavailable, "disk full".into());
        assert_eq!(cause(&[timed_out(), full]), Some(answered));
    }
}
