//! Processor time of a process.

use std::time::Duration;

use crate::{HarnessError, Result};

/// Duration of a clock tick of `/proc`: 1/100 s on every architecture of Linux.
const TICK: Duration = Duration::from_millis(10);

/// Returns the processor time of a process in user mode and in the kernel.
pub(super) fn time_of_process(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(HarnessError::io(format!("read {path}")))?;
    time_from_stat(&stat)
        .ok_or_else(|| HarnessError::violated(format!("{path} lacks the processor time: {stat}")))
}

/// The name of the process, in parentheses, may contain spaces.
fn time_from_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split_whitespace().skip(11);
    let user: u32 = ticks.next()?.parse().ok()?;
    let kernel: u32 = ticks.next()?.parse().ok()?;
    Some(TICK * user.saturating_add(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_parsed_from_process_stat() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9";
        assert_eq!(time_from_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(time_from_stat("42 (x) S 1"), None);
        assert!(time_of_process(std::process::id()).is_ok());
    }
}
