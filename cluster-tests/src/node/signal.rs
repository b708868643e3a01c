//! Signals to processes by id.

use tokio::process::Command;

use crate::{HarnessError, Result};

/// Signal that a scenario sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Requests a graceful stop.
    Term,
    /// The same from a terminal: Ctrl-C.
    Interrupt,
    /// Freezes the process, which keeps its connections.
    Stop,
    /// Continues a frozen process.
    Continue,
    /// Ends the process immediately.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Interrupt => "INT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }
}

/// Sends a signal with the `kill` of the shell, which every POSIX system has.
///
/// # Errors
/// If there is no such process.
pub async fn send(pid: u32, signal: Signal) -> Result<()> {
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
