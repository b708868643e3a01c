use std::collections::VecDeque;
use std::future::pending;

use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio_util::task::AbortOnDropHandle;

use super::*;

const LEASE: Duration = Duration::from_secs(60);

/// Scripted answer to a renewal.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Renewed,
    Missing,
    Failed,
    /// Renewed after this time.
    Late(Duration),
    Never,
}

/// Renewals with scripted answers; without one, they succeed at once.
#[derive(Debug, Default)]
struct ScriptedRenewals {
    answers: Mutex<VecDeque<Answer>>,
    /// Begins of the renewals.
    begun: Mutex<Vec<Instant>>,
}

impl Renewals for Arc<ScriptedRenewals> {
    async fn renew(&self, _: Duration) -> Result<bool, ClientError> {
        self.begun.lock().push(Instant::now());
        let answer = self.answers.lock().pop_front();
        match answer.unwrap_or(Answer::Renewed) {
            Answer::Renewed => Ok(true),
            Answer::Missing => Ok(false),
            Answer::Failed => {
                let refusal = Box::new(Refusal::new(Reason::InvalidArgument, "scripted"));
                Err(ClientError::Refused { what: "renewing holds".to_owned(), refusal })
            }
            Answer::Late(time) => {
                sleep(time).await;
                Ok(true)
            }
            Answer::Never => pending().await,
        }
    }

    fn bits(&self) -> u64 {
        0
    }
}

/// A hold that was acquired at `begun`.
struct Kept {
    begun: Instant,
    renewals: Arc<ScriptedRenewals>,
    states: Arc<watch::Sender<HoldState>>,
    _task: AbortOnDropHandle<()>,
}

fn kept(answers: &[Answer]) -> Kept {
    let begun = Instant::now();
    let renewals = ScriptedRenewals {
        answers: Mutex::new(answers.iter().copied().collect()),
        ..ScriptedRenewals::default()
    };
    let renewals = Arc::new(renewals);
    let states = Arc::new(watch::Sender::new(HoldState::new(Lease::new(LEASE, begun))));
    let task = tokio::spawn(keep(renewals.clone(), states.clone()));
    Kept { begun, renewals, states, _task: AbortOnDropHandle::new(task) }
}

impl Kept {
    /// Sleeps until a time since the acquisition, and past the timers of that time.
    async fn until(&self, time: Duration) {
        sleep_until(self.begun + time + Duration::from_millis(10)).await;
    }

    /// Begins of the renewals, in seconds since the acquisition.
    fn begun_at(&self) -> Vec<u64> {
        let begun = self.renewals.begun.lock();
        begun.iter().map(|time| time.duration_since(self.begun).as_secs()).collect()
    }

    fn loss(&self) -> Option<HoldLoss> {
        self.states.borrow().loss_at(Instant::now())
    }

    /// Waits for the loss; returns it with its time since the acquisition, in seconds.
    async fn lost(&self) -> (HoldLoss, u64) {
        let mut states = self.states.subscribe();
        let loss = states.wait_for(|state| state.loss.is_some()).await.unwrap().loss;
        (loss.unwrap(), self.begun.elapsed().as_secs())
    }
}

#[tokio::test(start_paused = true)]
async fn lease_is_renewed_at_a_third() {
    let kept = kept(&[]);
    kept.until(Duration::from_secs(19)).await;
    assert_eq!(kept.begun_at(), Vec::<u64>::new());
    kept.until(Duration::from_secs(20)).await;
    assert_eq!(kept.begun_at(), [20]);
    kept.until(Duration::from_secs(3_600)).await;
    let begun = kept.begun_at();
    assert!(begun.iter().all(|time| time.is_multiple_of(20)), "{begun:?}");
    assert!((175..=180).contains(&begun.len()), "{} renewals", begun.len());
    assert_eq!(kept.loss(), None);
}

#[tokio::test(start_paused = true)]
async fn missing_hold_is_lost_at_once() {
    let kept = kept(&[Answer::Renewed, Answer::Missing]);
    assert_eq!(kept.lost().await, (HoldLoss::NotFound, 40));
    kept.until(Duration::from_secs(3_600)).await;
    assert_eq!(kept.begun_at(), [20, 40]);
    assert_eq!(kept.loss(), Some(HoldLoss::NotFound));
}

#[tokio::test(start_paused = true)]
async fn failed_renewals_are_repeated() {
    let kept = kept(&[Answer::Failed, Answer::Failed, Answer::Failed]);
    kept.until(Duration::from_secs(59)).await;
    // Pauses of half the backoff: 0.5 s, 1 s, 2 s; then a third of the lease after the success.
    assert_eq!(kept.begun_at(), [20, 20, 21, 23, 43]);
    kept.until(Duration::from_secs(600)).await;
    assert_eq!(kept.loss(), None);
}

#[tokio::test(start_paused = true)]
async fn hold_without_renewals_is_lost_with_its_lease() {
    let kept = kept(&[Answer::Failed; 1_000]);
    assert_eq!(kept.lost().await, (HoldLoss::NotRenewed, 60));
    let begun = kept.begun_at();
    assert!((10..40).contains(&begun.len()), "{begun:?}");
    kept.until(Duration::from_secs(600)).await;
    assert_eq!(kept.begun_at(), begun, "a lost hold is not renewed");
}

#[tokio::test(start_paused = true)]
async fn unanswered_renewal_ends_with_the_lease() {
    let kept = kept(&[Answer::Renewed, Answer::Never]);
    kept.until(Duration::from_secs(79)).await;
    assert_eq!(kept.loss(), None);
    // The lease counts from the renewal.
    assert_eq!(kept.lost().await, (HoldLoss::NotRenewed, 80));
}

#[tokio::test(start_paused = true)]
async fn lease_counts_from_the_begin_of_its_renewal() {
    let kept = kept(&[Answer::Late(Duration::from_secs(30)), Answer::Never]);
    // The renewal of 20 s succeeds at 50 s: the next one is due at 40 s.
    assert_eq!(kept.lost().await, (HoldLoss::NotRenewed, 80));
    assert_eq!(kept.begun_at(), [20, 50]);
}

#[tokio::test(start_paused = true)]
async fn ended_lease_is_lost_before_the_task_records_it() {
    let begun = Instant::now();
    let lease = Lease::new(LEASE, begun);
    let mut state = HoldState::new(lease);
    let end = begun + LEASE;
    assert_eq!(state.loss_at(end - Duration::from_millis(1)), None);
    assert_eq!(state.loss_at(end), Some(HoldLoss::NotRenewed));
    // A renewal that succeeds afterwards does not bring it back.
    assert_eq!(lease.after_renewal(begun, end), Err(HoldLoss::NotRenewed));
    assert!(lease.after_renewal(begun, end - Duration::from_millis(1)).is_ok());
    state.record_loss(HoldLoss::NotFound);
    state.record_loss(HoldLoss::NotRenewed);
    assert_eq!(state.loss_at(begun), Some(HoldLoss::NotFound));
}

#[tokio::test(start_paused = true)]
async fn lease_of_a_faulty_answer_is_bounded() {
    let lease = Lease::new(Duration::MAX, Instant::now());
    assert_eq!(lease.end() - Instant::now(), AcquireHold::MAX_LEASE);
}
