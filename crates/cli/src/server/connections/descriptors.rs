//! The limit of file descriptors of the process.

use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;

/// Most file descriptors that a process asks for: some systems set the hard limit to 2^30, and
/// libraries then reserve memory for each.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Descriptors to assume if the limit is unknown.
const USUAL_DESCRIPTORS: u64 = 1_024;

/// Raises the soft limit of file descriptors to the hard limit; returns the limit in effect. The soft
/// limit is 1,024 on most systems, for programs that use select(2).
pub(crate) fn raise_limit() -> u64 {
    let Some((soft, hard)) = limits() else { return USUAL_DESCRIPTORS };
    let wanted = wanted(soft, hard);
    if wanted > soft && set_soft(wanted, hard) { wanted } else { soft }
}

/// Returns the number of open file descriptors; `limit` if none is free to count them, and 0 if the system
/// does not list them.
pub(crate) fn open(limit: u64) -> u64 {
    match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries.count() as u64,
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => limit,
        Err(_) => 0,
    }
}

/// Returns the problem of a process that uses most of its file descriptors.
pub(crate) fn shortage(open: u64, limit: u64) -> Option<Problem> {
    if open < limit / 10 * 9 {
        return None;
    }
    let detail = format!(
        "it uses {open} of {limit} file descriptors; raise the limit of open files of its process"
    );
    Some(Problem::new(ProblemKind::DescriptorsShort, detail))
}

/// Returns the soft limit to set.
fn wanted(soft: u64, hard: u64) -> u64 {
    soft.max(hard.min(MOST_DESCRIPTORS))
}

fn limits() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to the struct that it is passed, and nothing else.
    #[allow(unsafe_code)]
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (result == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

fn set_soft(soft: u64, hard: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the call reads the struct that it is passed, and nothing else.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_free_descriptors_are_a_problem() {
        for (open, limit, is_short) in [
            (0, 256, false),
            (224, 256, false),
            (225, 256, true),
            (256, 256, true),
            (9, 1 << 20, false),
        ] {
            assert_eq!(shortage(open, limit).is_some(), is_short, "{open} of {limit}");
        }
        assert!(shortage(250, 256).unwrap().detail.contains("250 of 256"));
        let before = open(1 << 20);
        let _file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(before > 2 && open(1 << 20) > 2);
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_limit() {
        for (soft, hard, expected) in [
            (1_024, 524_288, 524_288),
            (256, 256, 256),
            (1_024, u64::MAX, 1 << 20),
            (1 << 22, 1 << 22, 1 << 22),
        ] {
            assert_eq!(wanted(soft, hard), expected);
        }
        let raised = raise_limit();
        assert_eq!(limits().unwrap().0, raised);
    }
}
