//! Signals by process id.

use tokio::process::Command;

use crate::{HarnessError, Result};

/// A signal that scenarios send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks for a graceful stop.
    Term,
    /// Freezes the process: it keeps its connections and does nothing.
    Stop,
    /// Wakes a frozen process.
    Continue,
    /// Ends the process at once, in the middle of whatever it does.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }
}

/// Sends through the shell's own `kill`, which every POSIX system has.
pub(super) async fn send(pid: u32, signal: Signal) -> Result<()> {
    let what = format!("send SIG{} to process {pid}", signal.name());
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", signal.name(), &pid.to_string()])
        .status()
        .await
        .map_err(HarnessError::io(what.clone()))?;
    if status.success() {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("cannot {what}: {status}")))
    }
}
