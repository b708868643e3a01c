use super::*;

fn epochs(after: Option<u64>, as_of: u64) -> StepEpochs {
    StepEpochs { after, as_of }
}

#[test]
fn first_step_has_the_contents_and_later_ones_changes() {
    for (step, epochs) in [(1, epochs(None, 1)), (2, epochs(Some(5), 6)), (9, epochs(Some(0), 6))] {
        check_epochs(step, epochs).unwrap();
    }
    for (step, epochs) in [
        (0, epochs(None, 1)),
        (1, epochs(None, 0)),
        (1, epochs(Some(5), 6)),
        (2, epochs(None, 6)),
        (2, epochs(Some(6), 6)),
    ] {
        let refused = check_epochs(step, epochs).unwrap_err();
        assert_eq!(refused.reason, Reason::InvalidArgument, "step {step}");
    }
}

#[test]
fn part_of_other_epochs_is_refused() {
    let file = StepFile { path: "a".to_owned(), rows: 1, bytes: 2 };
    let part = Part::new(epochs(Some(5), 6), vec![file.clone()]);
    assert_eq!(of_step(part.clone(), "p", epochs(Some(5), 6)), Ok(vec![file]));
    let refused = of_step(part, "p", epochs(Some(5), 7)).unwrap_err();
    assert_eq!(refused.reason, Reason::Corrupt);
}

#[test]
fn errors_of_targets_keep_their_text() {
    for (error, expected) in [
        (TargetError::Unavailable("full".to_owned()), Reason::ExportTargetUnavailable),
        (TargetError::NotPermitted("outside".to_owned()), Reason::ExportTargetUnavailable),
        (TargetError::BadConfig("no url".to_owned()), Reason::InvalidArgument),
        (TargetError::Invalid("too large".to_owned()), Reason::Corrupt),
    ] {
        let text = error.to_string();
        let refusal = target_error(error);
        assert_eq!((refusal.reason, refusal.message), (expected, text));
    }
}
