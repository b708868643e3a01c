use tidewater_proto::v1::{self, NodeState, meta_command::Kind};
use uuid::Uuid;

use super::*;
use crate::catalog_events::testing::{EventLog, NOW_MS};
use crate::commands::apply;
use crate::commands::testing::{command, raise_to, raise_to_highest, registration, with_nodes};

const DAYS: u64 = 3 * 86_400_000;

fn set(state: NodeState) -> Kind {
    Kind::SetNodeState(v1::SetNodeState { node_id: 101, state: state.into() })
}

fn down() -> Kind {
    set(NodeState::Down)
}

fn up() -> Kind {
    set(NodeState::Up)
}

/// A log at the highest level whose clocks have agreed, which a new leader continues.
fn in_next_term() -> EventLog {
    let mut state = with_nodes(1);
    raise_to_highest(&mut state);
    let mut log = EventLog::agreed(state);
    log.term = 2;
    log
}

/// A tick while the clocks do not agree.
fn elapsed(now_ms: u64) -> Kind {
    Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: 0 })
}

fn tick(now_ms: u64) -> Kind {
    Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: now_ms })
}

/// Ids of the recent events.
fn ids(log: &EventLog) -> Vec<Option<Uuid>> {
    let events = log.events.recent().events_from(0, usize::MAX).events;
    events.iter().map(|event| event.shared_id()).collect()
}

/// Id of the first event of a type in an entry.
fn id(event_type: &str, time_ms: u64, index: u64) -> Option<Uuid> {
    let position = SharedPosition { time_ms, index: LogIndex(index), number: 0 };
    Some(position.id(event_type))
}

#[test]
fn early_events_get_the_first_agreed_time() {
    let mut log = EventLog::new(with_nodes(1));
    log.apply(Kind::RegisterNode(registration(2)));
    log.apply(Kind::RegisterNode(registration(3)));
    assert!(ids(&log).is_empty());
    log.apply(tick(NOW_MS));
    log.apply(tick(NOW_MS + 1_000));
    log.apply(down());
    let expected =
        [id("node_up", NOW_MS, 1), id("node_up", NOW_MS, 2), id("node_down", NOW_MS + 1_000, 5)];
    assert_eq!(ids(&log), expected);
}

#[test]
fn early_events_are_limited() {
    let mut log = EventLog::new(with_nodes(1));
    for _ in 0..MAX_RECENT {
        log.apply(down());
        log.apply(up());
    }
    assert_eq!(log.events.early.len(), MAX_RECENT);
    log.apply(tick(NOW_MS));
    let ids = ids(&log);
    let oldest = id("node_down", NOW_MS, MAX_RECENT as u64 + 1);
    assert_eq!((ids.len(), ids[0]), (MAX_RECENT, oldest));
    assert!(log.events.early.is_empty());
}

#[test]
fn events_after_an_outage_have_the_agreed_time() {
    let mut state = with_nodes(1);
    raise_to_highest(&mut state);
    let mut log = EventLog::agreed(state);
    log.apply(down());
    log.term = 2;
    log.apply(elapsed(NOW_MS + 1_000));
    log.apply(up());
    log.apply(elapsed(NOW_MS + 2_000));
    log.apply(down());
    log.apply(elapsed(NOW_MS + 3_000));
    assert_eq!(ids(&log), [id("node_down", NOW_MS, 2)], "the term of the agreement");
    let later = NOW_MS + DAYS;
    log.apply(tick(later));
    log.apply(elapsed(later + 1_000));
    log.apply(up());
    let expected = [
        id("node_down", NOW_MS, 2),
        id("node_up", later - 2_000, 4),
        id("node_down", later - 1_000, 6),
        id("node_up", later + 1_000, 10),
    ];
    assert_eq!(ids(&log), expected);
}

#[test]
fn events_wait_for_no_clocks_below_their_level() {
    let mut state = with_nodes(1);
    raise_to(&mut state, FeatureLevel::EXACT_EVENTS.previous());
    let mut log = EventLog::agreed(state);
    log.term = 2;
    log.apply(down());
    assert_eq!(ids(&log), [id("node_down", NOW_MS, 2)]);
}

#[test]
fn events_wait_for_a_limited_time() {
    let mut log = in_next_term();
    log.apply(down());
    let steps = MAX_WAIT_MS / 2_000;
    for step in 1..=steps {
        assert!(ids(&log).is_empty(), "{step}");
        log.apply(elapsed(NOW_MS + 2_000 * step));
    }
    assert_eq!(ids(&log), [id("node_down", NOW_MS, 2)]);
    log.apply(up());
    log.apply(tick(NOW_MS + DAYS));
    assert_eq!(ids(&log)[1..], [id("node_up", NOW_MS + DAYS, steps + 3)]);
}

#[test]
fn restarted_replica_derives_equal_times() {
    let mut log = in_next_term();
    log.apply(down());
    let mut restarted = log.restarted();
    for kind in [elapsed(NOW_MS + 1_000), up(), elapsed(NOW_MS + 2_000), tick(NOW_MS + DAYS)] {
        log.apply(kind.clone());
        restarted.apply(kind);
    }
    assert_eq!(ids(&log).len(), 2);
    assert_eq!(ids(&restarted), ids(&log)[1..]);
}

#[test]
fn snapshot_ends_early_events_only() {
    let mut log = EventLog::agreed(with_nodes(1));
    log.apply(down());
    // Of a batch that was not published.
    let mut changed = log.state.clone();
    let (_, effects) = apply(&mut changed, Term(log.term), command(up())).unwrap();
    log.events.follow((Term(log.term), LogIndex(3)), &effects.replaced, &changed);
    log.events.skip_to_snapshot();
    assert_eq!(ids(&log), [id("node_down", NOW_MS, 2), id("node_up", NOW_MS, 3)]);

    let mut early = EventLog::new(with_nodes(1));
    early.apply(down());
    early.events.skip_to_snapshot();
    early.apply(tick(NOW_MS));
    assert!(ids(&early).is_empty());
}
