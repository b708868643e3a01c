mod regions;
mod serving;

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
