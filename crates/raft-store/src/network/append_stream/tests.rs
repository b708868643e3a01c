//! Which of openraft's requests leave, and when.

use futures::channel::mpsc::{self, Sender};

use super::*;
use crate::network::held_commit::HOLD;
use crate::testing::{entries, indexes};
use crate::types::{Entry, Vote, log_id};

type Request = AppendEntriesRequest<TypeConfig>;

fn departures() -> (Sender<Request>, Departures) {
    let (requests, input) = mpsc::channel(8);
    let flight = Arc::new(Flight {
        state: Mutex::new(FlightState { input: Some(Box::pin(input)), ..FlightState::default() }),
        departed: Notify::new(),
    });
    (requests, Departures { flight, held: HeldCommit::default() })
}

fn request(committed: u64, entries: Vec<Entry>) -> Request {
    Request {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(log_id(1, 9)),
        entries,
        leader_commit: Some(log_id(1, committed)),
    }
}

/// What a request says: the committed index, and the indexes of its entries.
fn said(request: v1::AppendEntriesRequest) -> (u64, Vec<u64>) {
    let request = wire::append_from_wire(request).unwrap();
    (request.leader_commit.unwrap().index, indexes(&request.entries))
}

#[tokio::test]
async fn entries_take_along_what_is_committed() {
    let (mut requests, mut departures) = departures();
    requests.try_send(request(8, Vec::new())).unwrap();
    requests.try_send(request(9, Vec::new())).unwrap();
    requests.try_send(request(9, entries(1, 10..12))).unwrap();
    assert_eq!(departures.next().await.map(said), Some((9, vec![10, 11])));
    assert_eq!(departures.flight.state.lock().sent.len(), 1, "one answer is awaited");
    drop(requests);
    assert!(departures.next().await.is_none());
}

#[tokio::test]
async fn what_is_committed_is_told_when_no_entries_come() {
    let (mut requests, mut departures) = departures();
    for committed in [8, 9] {
        let begun = Instant::now();
        requests.try_send(request(committed, Vec::new())).unwrap();
        assert_eq!(departures.next().await.map(said), Some((committed, vec![])));
        assert!(begun.elapsed() >= HOLD);
    }
    let late = tokio::time::timeout(2 * HOLD, departures.next()).await;
    assert!(late.is_err(), "each is told once");
}

/// Openraft probes a follower by a stream of one request without entries.
#[tokio::test]
async fn a_single_request_leaves_at_once() {
    let (mut requests, mut departures) = departures();
    requests.try_send(request(9, Vec::new())).unwrap();
    drop(requests);
    // Before the timer could have fired: it is not polled.
    let first = futures::poll!(departures.next());
    assert!(matches!(first, Poll::Ready(Some(_))));
    assert!(departures.next().await.is_none());
}

/// An answer counts for readers that came before its own request left, and for no others.
#[tokio::test(start_paused = true)]
async fn each_request_keeps_the_time_at_which_it_left() {
    let (mut requests, mut departures) = departures();
    let begun = Instant::now();
    for index in [10, 11] {
        requests.try_send(request(9, entries(1, index..index + 1))).unwrap();
        departures.next().await.unwrap();
        tokio::time::advance(Duration::from_millis(7)).await;
    }
    let state = departures.flight.state.lock();
    let left: Vec<_> = state.sent.iter().map(|sent| (sent.term, sent.at - begun)).collect();
    let after = |millis| (Term(1), Duration::from_millis(millis));
    assert_eq!(left, [after(0), after(7)]);
}

#[test]
fn only_an_answer_to_a_higher_vote_denies_the_leader() {
    assert!(accepts_leader(&Ok(Some(log_id(1, 9)))));
    assert!(accepts_leader(&Err(StreamAppendError::Conflict(log_id(1, 9)))));
    assert!(!accepts_leader(&Err(StreamAppendError::HigherVote(Vote::new_committed(2, 3)))));
}
