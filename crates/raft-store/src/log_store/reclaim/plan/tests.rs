use super::*;

fn span(from: (u64, u64), end: (u64, u64)) -> LogSpan {
    LogSpan { from: (GroupId(from.0), from.1), end: (GroupId(end.0), end.1) }
}

fn live(groups: &[(u64, u64)]) -> LiveLogs {
    LiveLogs(groups.iter().map(|(group, from)| (GroupId(*group), *from)).collect())
}

/// A file of 100 bytes from index `at` of group 1, alone in its span, with `dead` dead bytes.
fn file(level: i32, at: u64, dead: u64) -> MeasuredFile {
    MeasuredFile {
        span: span((1, at), (1, at + 10)),
        level,
        bytes: 100,
        span_bytes: 100,
        live_bytes: 100 - dead,
    }
}

#[test]
fn span_of_a_file_ends_after_its_last_entry() {
    let group = GroupId(3);
    assert_eq!(LogSpan::of_file((group, 1), (group, 9)), span((3, 1), (3, 10)));
    assert_eq!(LogSpan::of_file((group, 1), (group, u64::MAX)), span((3, 1), (4, 0)));
}

#[test]
fn live_spans_are_cut_at_the_file() {
    let logs = live(&[(1, 50), (2, 0), (4, 7)]);
    let max = u64::MAX;
    assert_eq!(
        logs.live_within(LogSpan::ALL),
        [span((1, 50), (1, max)), span((2, 0), (2, max)), span((4, 7), (4, max))]
    );
    assert_eq!(
        logs.live_within(span((1, 10), (2, 5))),
        [span((1, 50), (1, max)), span((2, 0), (2, 5))]
    );
    assert_eq!(logs.live_within(span((1, 10), (1, 50))), []);
    assert_eq!(logs.live_within(span((1, 10), (1, 51))), [span((1, 50), (1, 51))]);
    assert_eq!(logs.live_within(span((3, 0), (4, 7))), [], "group 3 has no log");
}

#[test]
fn purged_part_ends_at_the_last_purged_entry() {
    let purged: Vec<_> = live(&[(1, 50), (2, 0), (4, 1)]).purged().collect();
    assert_eq!(purged, [(GroupId(1), 0, 49), (GroupId(4), 0, 0)]);
}

#[test]
fn compaction_waits_for_the_slack() {
    let files = [file(6, 0, 60), file(6, 10, 60)];
    assert_eq!(span_to_compact(&files, 120, 1_000), None);
    assert_eq!(span_to_compact(&files, 119, 1_000), Some(span((1, 0), (1, 20))));
}

#[test]
fn compaction_takes_the_neighbours_that_release_most() {
    let at = |from, end| Some(span((1, from), (1, end)));
    let cases: [(&str, &[MeasuredFile], u64, Option<LogSpan>); 7] = [
        ("no file", &[], 1_000, None),
        ("a file that is mostly live", &[file(6, 0, 49)], 1_000, None),
        ("level 0", &[file(0, 0, 100)], 1_000, None),
        (
            "a live file between",
            &[file(6, 0, 60), file(6, 10, 0), file(6, 20, 90)],
            1_000,
            at(20, 30),
        ),
        ("the limit", &[file(6, 0, 60), file(6, 10, 60), file(6, 20, 60)], 200, at(0, 20)),
        ("a file above the limit", &[file(6, 0, 60)], 10, at(0, 10)),
        ("two levels", &[file(5, 0, 60), file(6, 10, 70)], 1_000, at(10, 20)),
    ];
    for (name, files, limit, expected) in cases {
        assert_eq!(span_to_compact(files, 0, limit), expected, "{name}");
    }
}

#[test]
fn file_has_the_dead_share_of_its_span() {
    let mut shared = file(6, 0, 0);
    // A file of another level holds the same positions.
    shared.span_bytes = 400;
    shared.live_bytes = 100;
    assert_eq!(shared.dead_bytes(), 75);
    shared.span_bytes = 0;
    assert_eq!(shared.dead_bytes(), 0, "an estimate of nothing");
}
