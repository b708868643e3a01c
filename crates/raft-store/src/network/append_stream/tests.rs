//! Which of openraft's requests are sent, and when.

use futures::channel::mpsc::{self, Sender};

use super::*;
use crate::network::held_commit::HOLD;
use crate::testing::{entries, indexes};
use crate::types::{Entry, Vote, log_id};

type Request = AppendEntriesRequest<TypeConfig>;

fn request_stream() -> (Sender<Request>, RequestStream) {
    let (requests, input) = mpsc::channel(8);
    let in_flight = Arc::new(InFlightAppends {
        state: Mutex::new(InFlightState {
            input: Some(Box::pin(input)),
            ..InFlightState::default()
        }),
        request_sent: Notify::new(),
    });
    (requests, RequestStream { in_flight, held: HeldCommit::default() })
}

fn request(committed: u64, entries: Vec<Entry>) -> Request {
    Request {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(log_id(1, 9)),
        entries,
        leader_commit: Some(log_id(1, committed)),
    }
}

/// Returns a request's committed index, and the indexes of its entries.
fn contents(request: v1::AppendEntriesRequest) -> (u64, Vec<u64>) {
    let request = wire::append_from_wire(request).unwrap();
    (request.leader_commit.unwrap().index, indexes(&request.entries))
}

#[tokio::test]
async fn entries_carry_the_committed_index() {
    let (mut requests, mut stream) = request_stream();
    requests.try_send(request(8, Vec::new())).unwrap();
    requests.try_send(request(9, Vec::new())).unwrap();
    requests.try_send(request(9, entries(1, 10..12))).unwrap();
    assert_eq!(stream.next().await.map(contents), Some((9, vec![10, 11])));
    assert_eq!(stream.in_flight.state.lock().sent.len(), 1, "one answer is awaited");
    drop(requests);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn committed_index_is_sent_without_entries_when_due() {
    let (mut requests, mut stream) = request_stream();
    for committed in [8, 9] {
        let begun = Instant::now();
        requests.try_send(request(committed, Vec::new())).unwrap();
        assert_eq!(stream.next().await.map(contents), Some((committed, vec![])));
        assert!(begun.elapsed() >= HOLD);
    }
    let late = tokio::time::timeout(2 * HOLD, stream.next()).await;
    assert!(late.is_err(), "each index is sent once");
}

/// Openraft probes a follower by a stream of one request without entries.
#[tokio::test]
async fn single_request_is_sent_immediately() {
    let (mut requests, mut stream) = request_stream();
    requests.try_send(request(9, Vec::new())).unwrap();
    drop(requests);
    // Before the timer can fire: it is not polled.
    let first = futures::poll!(stream.next());
    assert!(matches!(first, Poll::Ready(Some(_))));
    assert!(stream.next().await.is_none());
}

/// A response counts for readers that arrived before its own request was sent, and for no others.
#[tokio::test(start_paused = true)]
async fn each_request_keeps_its_send_time() {
    let (mut requests, mut stream) = request_stream();
    let begun = Instant::now();
    for index in [10, 11] {
        requests.try_send(request(9, entries(1, index..index + 1))).unwrap();
        stream.next().await.unwrap();
        tokio::time::advance(Duration::from_millis(7)).await;
    }
    let state = stream.in_flight.state.lock();
    let left: Vec<_> = state.sent.iter().map(|sent| (sent.term, sent.at - begun)).collect();
    let after = |millis| (Term(1), Duration::from_millis(millis));
    assert_eq!(left, [after(0), after(7)]);
}

#[test]
fn only_a_higher_vote_denies_the_leader() {
    assert!(accepts_leader(&Ok(Some(log_id(1, 9)))));
    assert!(accepts_leader(&Err(StreamAppendError::Conflict(log_id(1, 9)))));
    assert!(!accepts_leader(&Err(StreamAppendError::HigherVote(Vote::new_committed(2, 3)))));
}
