//! *Failed* or *unknown*: what an answer says about a write, and what to do next.
//!
//! A write has *failed* only when every attempt was answered, and each answer said that it has not
//! taken effect and never will. One attempt whose effect is not known (a lost answer, a timeout, a
//! leader that lost its office) makes the outcome *unknown* for good, because that attempt may
//! still take effect later, however the next ones are answered. Only a repeat that succeeds settles
//! it: writes take effect once, so the success speaks for all attempts.

use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;

/// What to do after an attempt that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Wait, then ask the same node again.
    Repeat,
    /// As [`Advice::Repeat`], but a few times only: this is more likely a fault than a passing
    /// state.
    RepeatFew,
    /// Another node leads, or this one cannot answer: wait, then ask the leader.
    FindLeader,
    /// The routes or the schema that the call named are out of date.
    RefreshCatalog,
    /// The region does not know the producer: go on with a new one.
    NewProducer,
    /// Repeating does not help.
    GiveUp,
}

/// How often a call is repeated on [`Advice::RepeatFew`].
pub const FEW: u32 = 5;

/// What `refusal` asks of whoever got it.
#[must_use]
pub fn advice(refusal: &Refusal) -> Advice {
    // No wildcard: a new reason compiles only once somebody has decided.
    match refusal.reason {
        Reason::Overloaded
        | Reason::DiskFull
        | Reason::RouteWriteFenced
        | Reason::RegionLoading
        | Reason::SchemaVersionBehind => Advice::Repeat,
        Reason::NoDataNodes | Reason::MembershipBusy | Reason::ObjectStoreUnavailable => {
            match refusal.retry_after {
                Some(_) => Advice::Repeat,
                None => Advice::GiveUp,
            }
        }
        Reason::Unspecified | Reason::Internal | Reason::Corrupt => Advice::RepeatFew,
        Reason::NotLeader
        | Reason::LeadershipLost
        | Reason::GroupNotHosted
        | Reason::WrongNode
        | Reason::NodeRemoved
        | Reason::NotBootstrapped
        | Reason::DeadlineExceeded
        | Reason::Unavailable
        | Reason::ShuttingDown => Advice::FindLeader,
        Reason::KeyOutsideRegion
        | Reason::RegionNotFound
        | Reason::GroupNotFound
        | Reason::RouteMoved
        | Reason::RegionFenced
        | Reason::SchemaVersionStale => Advice::RefreshCatalog,
        Reason::ProducerForgotten | Reason::SerialOutOfOrder => Advice::NewProducer,
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
        | Reason::Unsupported => Advice::GiveUp,
    }
}

/// How an attempt without success ended.
#[derive(Debug, Clone)]
pub struct Miss {
    /// What was answered, or what stands for it.
    pub refusal: Refusal,
    /// Whether the attempt may have taken effect.
    pub effect: Effect,
    /// Nobody answered: the connection could not be made, broke, or stayed silent.
    pub silent: bool,
}

impl Miss {
    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> Advice {
        if self.silent { Advice::FindLeader } else { advice(&self.refusal) }
    }
}

/// What is known of one write after the attempts made so far.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    made: u32,
    faults: u32,
    unknown: bool,
    last: Option<Refusal>,
}

/// The outcome of a write of which no attempt has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has not taken effect and never will.
    Failed,
    /// It may have taken effect, or may still do so.
    Unknown,
}

impl Attempts {
    /// Takes note of an attempt that did not succeed.
    pub fn note(&mut self, miss: &Miss) {
        self.made = self.made.saturating_add(1);
        self.unknown |= match miss.effect {
            Effect::None => false,
            Effect::Unknown => true,
        };
        if miss.advice() == Advice::RepeatFew {
            self.faults = self.faults.saturating_add(1);
        }
        self.last = Some(miss.refusal.clone());
    }

    /// Attempts made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Whether faults were answered so often that another repeat is pointless.
    pub fn too_many_faults(&self) -> bool {
        self.faults >= FEW
    }

    /// Whether some attempt may have taken effect.
    pub fn any_unknown(&self) -> bool {
        self.unknown
    }

    /// The outcome if no further attempt is made.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.unknown { Verdict::Unknown } else { Verdict::Failed }
    }

    /// What was answered last.
    pub fn last(&self) -> Option<&Refusal> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answered(reason: Reason) -> Miss {
        let refusal = Refusal::new(reason, "x");
        Miss { effect: refusal.effect(), refusal, silent: false }
    }

    fn lost() -> Miss {
        Miss {
            refusal: Refusal::new(Reason::Unavailable, "connection reset"),
            effect: Effect::Unknown,
            silent: true,
        }
    }

    fn not_connected() -> Miss {
        Miss {
            refusal: Refusal::new(Reason::Unavailable, "connection refused"),
            effect: Effect::None,
            silent: true,
        }
    }

    fn verdict(misses: &[Miss]) -> Verdict {
        let mut attempts = Attempts::default();
        for miss in misses {
            attempts.note(miss);
        }
        attempts.verdict()
    }

    #[test]
    fn failed_only_when_every_attempt_was_definitely_not_done() {
        use Verdict::{Failed, Unknown};
        let table: &[(&[Miss], Verdict)] = &[
            (&[], Failed),
            (&[answered(Reason::NotLeader)], Failed),
            (&[answered(Reason::Overloaded), answered(Reason::Overloaded)], Failed),
            (&[not_connected(), answered(Reason::NotLeader)], Failed),
            (&[lost()], Unknown),
            (&[answered(Reason::LeadershipLost)], Unknown),
            (&[answered(Reason::DeadlineExceeded)], Unknown),
            (&[answered(Reason::Internal)], Unknown),
            // A later definite answer does not unmake an earlier doubt.
            (&[lost(), answered(Reason::NotLeader)], Unknown),
            (&[lost(), answered(Reason::ProducerForgotten)], Unknown),
            (&[lost(), answered(Reason::InvalidArgument)], Unknown),
            (&[lost(), not_connected()], Unknown),
            (&[answered(Reason::ProducerForgotten)], Failed),
            (&[answered(Reason::InvalidArgument)], Failed),
        ];
        for (index, (misses, expected)) in table.iter().enumerate() {
            assert_eq!(verdict(misses), *expected, "case {index}");
        }
    }

    #[test]
    fn every_reason_has_an_advice_that_fits_its_effect() {
        for number in 0..200 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let refusal = Refusal::new(reason, "x");
            if refusal.effect() == Effect::Unknown {
                // A write in doubt is repeated: only a success settles it.
                assert_ne!(advice(&refusal), Advice::GiveUp, "{reason:?}");
            }
        }
    }

    #[test]
    fn advice_by_reason() {
        for (reason, expected) in [
            (Reason::NotLeader, Advice::FindLeader),
            (Reason::Overloaded, Advice::Repeat),
            (Reason::KeyOutsideRegion, Advice::RefreshCatalog),
            (Reason::RegionNotFound, Advice::RefreshCatalog),
            (Reason::ProducerForgotten, Advice::NewProducer),
            (Reason::InvalidArgument, Advice::GiveUp),
            (Reason::NoDataNodes, Advice::GiveUp),
            (Reason::Internal, Advice::RepeatFew),
        ] {
            assert_eq!(advice(&Refusal::new(reason, "x")), expected, "{reason:?}");
        }
        let told = Refusal::new(Reason::NoDataNodes, "x").retry_after(Duration::from_millis(1));
        assert_eq!(advice(&told), Advice::Repeat);
    }

    #[test]
    fn silence_leads_elsewhere_and_is_no_fault() {
        let mut attempts = Attempts::default();
        for _ in 0..2 * FEW {
            attempts.note(&lost());
        }
        assert_eq!(lost().advice(), Advice::FindLeader);
        assert!(!attempts.too_many_faults());
        for _ in 0..FEW {
            attempts.note(&answered(Reason::Internal));
        }
        assert!(attempts.too_many_faults());
    }
}
