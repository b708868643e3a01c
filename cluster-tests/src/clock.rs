//! Wall clock of a node that a scenario sets while the node runs.
//!
//! libfaketime (the Debian package `faketime`) intercepts the node's readings of the wall clock. It reads
//! the offset from a file. Monotonic time, timers and file times are not affected.

use std::path::{Path, PathBuf};

use crate::node::NodeSpec;
use crate::{HarnessError, Result};

/// Places where distributions install the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Wall clock of one or several nodes.
#[derive(Debug, Clone)]
pub struct WallClock {
    offset: PathBuf,
    library: &'static str,
}

impl WallClock {
    /// Creates a clock without an offset, which is stored in the directory.
    ///
    /// # Errors
    /// If libfaketime is not installed, or the file cannot be written.
    pub fn create(directory: &Path, name: &str) -> Result<Self> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
        let library = library.ok_or_else(|| {
            HarnessError::violated("libfaketime is missing: install the package `faketime`")
        })?;
        let clock = Self { offset: directory.join(format!("{name}.clock")), library };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Makes a node use the clock, from its next start.
    pub fn attach(&self, spec: &mut NodeSpec) {
        let variables = [
            ("LD_PRELOAD", self.library),
            // Not for long, so that a running node notices another offset.
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        spec.env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        spec.env.push(("FAKETIME_TIMESTAMP_FILE".to_owned(), self.offset.display().to_string()));
    }

    /// Sets the difference from the machine's clock, e.g. `+1y`, `-3600`; running nodes follow within a
    /// second or two.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, offset: &str) -> Result<()> {
        // Written aside and renamed: a node must not read half an offset.
        let fresh = self.offset.with_extension("new");
        std::fs::write(&fresh, format!("{offset}\n"))
            .and_then(|()| std::fs::rename(&fresh, &self.offset))
            .map_err(HarnessError::io("set a clock"))
    }
}
