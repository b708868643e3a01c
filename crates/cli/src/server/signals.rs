//! Signals: SIGTERM and SIGINT stop the process, a second one immediately. SIGXFSZ is without effect.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Receiver of stop signals.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// With a handler in place, a write above the limit of file sizes fails with EFBIG, which counts as
    /// a full disk. The default of the signal ends the process.
    _file_size: Signal,
}

impl StopSignals {
    /// Replaces the default handlers of the signals.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind)
                .map_err(|error| Failure::other(format!("cannot install signal handlers: {error}")))
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            _file_size: take(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// Waits for the next signal; returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
