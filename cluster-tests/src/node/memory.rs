//! Resident memory of a process.

use crate::{HarnessError, Result};

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Peak since the start of the process.
    pub peak: u64,
    /// Current value.
    pub now: u64,
}

impl Memory {
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status =
            std::fs::read_to_string(&path).map_err(HarnessError::io(format!("read {path}")))?;
        Self::from_status(&status).ok_or_else(|| {
            HarnessError::violated(format!("{path} lacks the resident memory: {status}"))
        })
    }

    fn from_status(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { peak: bytes("VmHWM:")?, now: bytes("VmRSS:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_parsed_from_process_status() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let memory = Memory::from_status(status).unwrap();
        assert_eq!((memory.peak, memory.now), (2 << 20, 1 << 20));
        assert_eq!(Memory::from_status("Name:\tx\n"), None);
        assert!(Memory::of_process(std::process::id()).unwrap().now > 0);
    }
}
