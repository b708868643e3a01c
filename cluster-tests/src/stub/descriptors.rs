//! File descriptors of this process: each stub node needs about four, each watcher one.

use tokio::process::Command;

use crate::{HarnessError, Result};

/// Raises the soft limit of open files of this process to its hard limit, with the `prlimit` of Linux.
/// Processes that it starts later have the same limit.
///
/// # Errors
/// If the program is missing or refuses.
pub async fn raise_limit() -> Result<u64> {
    let pid = std::process::id().to_string();
    let limits = std::fs::read_to_string("/proc/self/limits")
        .map_err(HarnessError::io("read /proc/self/limits"))?;
    let (soft, hard) = open_files(&limits).ok_or_else(|| {
        HarnessError::violated(format!("/proc/self/limits lacks the open files: {limits}"))
    })?;
    if soft >= hard {
        return Ok(hard);
    }
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--nofile={hard}:{hard}")])
        .status()
        .await
        .map_err(HarnessError::io("run prlimit"))?;
    if status.success() {
        Ok(hard)
    } else {
        Err(HarnessError::violated(format!("prlimit --nofile={hard}: {status}")))
    }
}

/// Soft and hard limit of open files. "unlimited" is the greatest number that Linux allows by default.
fn open_files(limits: &str) -> Option<(u64, u64)> {
    let number = |text: &str| match text {
        "unlimited" => Some(1 << 20),
        number => number.parse().ok(),
    };
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut fields = line.split_whitespace();
    Some((number(fields.next()?)?, number(fields.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_parsed_from_limits() {
        let limits = "Limit  Soft  Hard  Units\nMax processes 1 2 processes\n\
            Max open files            1024                 20000                files\n";
        assert_eq!(open_files(limits), Some((1_024, 20_000)));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some((1 << 20, 1 << 20))
        );
        assert_eq!(open_files(""), None);
    }
}
