//! Disk for a node's directory or for the object store, which a scenario can fill and empty without
//! effect on other processes.
//!
//! Preferred is a small tmpfs in its own mount namespace, which an ordinary user may create on most
//! systems. An idle process holds the namespace and the node starts in it, so that kill and restart
//! find the same disk. Where that is not permitted, the node's reserve (`--disk-reserve`) is set just
//! below the free space of the machine's disk, and filling means writing a large file there: the node
//! sees too little space, but the disk is never full.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::node::NodeSpec;
use crate::{HarnessError, Result};

const MIB: u64 = 1 << 20;
/// Size for the write buffers and logs of a node, its reserve, and the writes of a scenario.
const TMPFS_MIB: u64 = 512;
/// Changes of free space on the machine's disk, in bytes, that must not affect the scenario.
const MARGIN: u64 = 1 << 30;
const MOUNTED_WITHIN: Duration = Duration::from_secs(20);

/// A disk that a scenario can fill and empty.
#[derive(Debug)]
pub struct SmallDisk {
    kind: Kind,
    /// Root of the disk as this process sees it.
    directory: PathBuf,
}

#[derive(Debug)]
enum Kind {
    Tmpfs { holder: Child, pid: u32 },
    Reserve { bytes: u64 },
}

impl SmallDisk {
    /// Creates a disk at the directory `at`, which is created as well. Prints to stderr if mounting is
    /// not permitted.
    ///
    /// # Errors
    /// If neither kind of disk can be created.
    pub async fn create(at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at)
            .map_err(HarnessError::io(format!("create {}", at.display())))?;
        match mount(at).await {
            Ok((holder, pid)) => {
                let inside = at.strip_prefix("/").unwrap_or(at);
                let directory = Path::new("/proc").join(pid.to_string()).join("root").join(inside);
                Ok(Self { kind: Kind::Tmpfs { holder, pid }, directory })
            }
            Err(why) => {
                eprintln!("cannot mount a small disk ({why}): using a large reserve instead");
                let bytes = free(at)?.saturating_sub(MARGIN);
                Ok(Self { kind: Kind::Reserve { bytes }, directory: at.to_owned() })
            }
        }
    }

    /// Makes the disk visible to a node. `reserves`: the node's disk reserve applies to this disk.
    pub(crate) fn attach(&self, spec: &mut NodeSpec, reserves: bool) {
        // The disk is smaller than the default.
        spec.env.push(("TIDEWATER_DISK_LOW".to_owned(), "0".to_owned()));
        match &self.kind {
            Kind::Tmpfs { pid, .. } => {
                let pid = pid.to_string();
                let launcher = ["nsenter", "--target", &pid, "--user", "--mount"];
                let rest = ["--preserve-credentials", "--"];
                spec.launcher = launcher.into_iter().chain(rest).map(str::to_owned).collect();
            }
            Kind::Reserve { bytes } if reserves => {
                spec.env.push(("TIDEWATER_DISK_RESERVE".to_owned(), bytes.to_string()));
            }
            Kind::Reserve { .. } => {}
        }
    }

    /// Returns true if the disk can be filled completely.
    pub fn is_small(&self) -> bool {
        matches!(self.kind, Kind::Tmpfs { .. })
    }

    /// Fills the disk to below the node's reserve, and leaves enough space for accepted writes.
    ///
    /// # Errors
    /// If the ballast cannot be written.
    pub fn fill_to_reserve(&self) -> Result<()> {
        match &self.kind {
            Kind::Tmpfs { .. } => self.fill_except(90 * MIB),
            Kind::Reserve { .. } => self.grow_ballast(2 * MARGIN),
        }
    }

    /// Fills the disk completely, if that does not affect other processes.
    ///
    /// # Errors
    /// If the ballast cannot be written.
    pub fn fill(&self) -> Result<()> {
        match &self.kind {
            Kind::Tmpfs { .. } => self.fill_except(0),
            Kind::Reserve { .. } => self.grow_ballast(2 * MARGIN),
        }
    }

    /// Frees the space again.
    ///
    /// # Errors
    /// If the ballast cannot be removed.
    pub fn empty(&self) -> Result<()> {
        let path = self.ballast_path();
        std::fs::remove_file(&path).map_err(HarnessError::io(format!("remove {}", path.display())))
    }

    fn ballast_path(&self) -> PathBuf {
        self.directory.join("ballast")
    }

    /// Fills the disk except for this number of bytes, if that does not affect other processes.
    ///
    /// # Errors
    /// If the ballast cannot be written.
    pub fn fill_except(&self, bytes: u64) -> Result<()> {
        let present = std::fs::metadata(self.ballast_path()).map_or(0, |file| file.len());
        self.grow_ballast(present + free(&self.directory)?.saturating_sub(bytes))
    }

    /// Grows the ballast file to `bytes`, or less if concurrent writes of the node leave less space.
    fn grow_ballast(&self, bytes: u64) -> Result<()> {
        let path = self.ballast_path();
        let what = format!("fill the disk with {}", path.display());
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(HarnessError::io(what.clone()))?;
        let mut bytes = bytes.max(1);
        loop {
            match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::NOSPC) if bytes > MIB => bytes -= MIB,
                Err(error) => return Err(HarnessError::io(what)(io::Error::from(error))),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Kind::Tmpfs { holder, .. } = &mut self.kind {
            // The holder is idle. The disk disappears when the last node in the namespace exits.
            let _ = holder.start_kill();
        }
    }
}

fn free(directory: &Path) -> Result<u64> {
    let stat = statvfs(directory).map_err(|error| {
        HarnessError::io(format!("inspect {}", directory.display()))(error.into())
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Mounts a tmpfs and returns the process that holds it, or the reason of the failure.
async fn mount(at: &Path) -> Result<(Child, u32), String> {
    let script =
        "mount -t tmpfs -o size=\"$1\"m tmpfs \"$0\" && echo mounted && exec sleep infinity";
    let mut holder = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .args([at.as_os_str(), TMPFS_MIB.to_string().as_ref()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("unshare: {error}"))?;
    let (Some(stdout), Some(stderr), Some(pid)) =
        (holder.stdout.take(), holder.stderr.take(), holder.id())
    else {
        return Err("unshare has no output".to_owned());
    };
    let mut stdout = BufReader::new(stdout);
    let mut stderr = BufReader::new(stderr);
    let mut line = String::new();
    match tokio::time::timeout(MOUNTED_WITHIN, stdout.read_line(&mut line)).await {
        Ok(Ok(_)) if line.trim() == "mounted" => Ok((holder, pid)),
        Ok(_) => {
            let mut error = String::new();
            let _ = stderr.read_line(&mut error).await;
            Err(error.trim().to_owned())
        }
        Err(_) => Err("mounting timed out".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_disk_can_be_filled_and_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let disk = SmallDisk::create(&directory.path().join("data")).await.unwrap();
        if matches!(disk.kind, Kind::Reserve { .. }) {
            return;
        }
        let before = free(&disk.directory).unwrap();
        assert!(before <= TMPFS_MIB * MIB);
        disk.fill_to_reserve().unwrap();
        let left = free(&disk.directory).unwrap();
        assert!((80 * MIB..=90 * MIB).contains(&left), "{left}");
        disk.fill().unwrap();
        assert!(free(&disk.directory).unwrap() < 2 * MIB);
        assert!(std::fs::write(disk.directory.join("x"), vec![1; 4 << 20]).is_err());
        std::fs::remove_file(disk.directory.join("x")).unwrap();
        disk.empty().unwrap();
        assert!(free(&disk.directory).unwrap() > before - 2 * MIB);
    }
}
