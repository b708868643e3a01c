//! A disk for a node's folder, or for the objects, that a scenario can fill and empty again, and nobody
//! else notices.
//!
//! The best is a small tmpfs in a mount namespace of its own, which an ordinary user may make on
//! most systems: a process that does nothing holds the namespace, and the node is started in it, so
//! that kill and restart find the same disk. Where that is not permitted, the node's reserve
//! (`--disk-reserve`) is set just below what the machine's disk has free, and filling means putting
//! a large file there: the node sees too little room, but never an empty disk.

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
/// Room for the write buffers and logs of a node, its reserve, and what a scenario writes.
const TMPFS_MIB: u64 = 512;
/// What may come and go on the machine's disk without being taken for the scenario's doing.
const MARGIN: u64 = 1 << 30;
const MOUNTED_WITHIN: Duration = Duration::from_secs(20);

/// See the module's head.
#[derive(Debug)]
pub struct SmallDisk {
    kind: Kind,
    /// Its root as this process reaches it.
    folder: PathBuf,
}

#[derive(Debug)]
enum Kind {
    Tmpfs { holder: Child, pid: u32 },
    Reserve { bytes: u64 },
}

impl SmallDisk {
    /// Makes a disk at a folder, which is created.
    ///
    /// # Errors
    /// When neither way works; not being permitted to mount is said on stderr.
    pub async fn make(at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at)
            .map_err(HarnessError::io(format!("create {}", at.display())))?;
        match mount(at).await {
            Ok((holder, pid)) => {
                let inside = at.strip_prefix("/").unwrap_or(at);
                let folder = Path::new("/proc").join(pid.to_string()).join("root").join(inside);
                Ok(Self { kind: Kind::Tmpfs { holder, pid }, folder })
            }
            Err(why) => {
                eprintln!(
                    "no small disk can be mounted here ({why}): a large reserve stands for it"
                );
                let bytes = free(at)?.saturating_sub(MARGIN);
                Ok(Self { kind: Kind::Reserve { bytes }, folder: at.to_owned() })
            }
        }
    }

    /// Has a node find the disk where it was mounted. `minds`: the node's reserve is of this disk.
    pub(crate) fn under(&self, spec: &mut NodeSpec, minds: bool) {
        match &self.kind {
            Kind::Tmpfs { pid, .. } => {
                let pid = pid.to_string();
                let launcher = ["nsenter", "--target", &pid, "--user", "--mount"];
                let rest = ["--preserve-credentials", "--"];
                spec.launcher = launcher.into_iter().chain(rest).map(str::to_owned).collect();
            }
            Kind::Reserve { bytes } if minds => {
                spec.env.push(("TIDEWATER_DISK_RESERVE".to_owned(), bytes.to_string()));
            }
            Kind::Reserve { .. } => {}
        }
    }

    /// Whether it can really be full.
    pub fn is_small(&self) -> bool {
        matches!(self.kind, Kind::Tmpfs { .. })
    }

    /// Leaves less than the node's reserve free, and enough for what it has accepted.
    ///
    /// # Errors
    /// When the disk does not let it.
    pub fn fill_to_reserve(&self) -> Result<()> {
        match &self.kind {
            Kind::Tmpfs { .. } => self.leave(90 * MIB),
            Kind::Reserve { .. } => self.ballast(2 * MARGIN),
        }
    }

    /// Leaves nothing, where that is possible without harm to others.
    ///
    /// # Errors
    /// When the disk does not let it.
    pub fn fill(&self) -> Result<()> {
        match &self.kind {
            Kind::Tmpfs { .. } => self.leave(0),
            Kind::Reserve { .. } => self.ballast(2 * MARGIN),
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When the ballast cannot be removed.
    pub fn empty(&self) -> Result<()> {
        let path = self.ballast_path();
        std::fs::remove_file(&path).map_err(HarnessError::io(format!("remove {}", path.display())))
    }

    fn ballast_path(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    fn leave(&self, bytes: u64) -> Result<()> {
        let there = std::fs::metadata(self.ballast_path()).map_or(0, |file| file.len());
        self.ballast(there + free(&self.folder)?.saturating_sub(bytes))
    }

    /// The ballast is a file of so many bytes; a node that writes meanwhile may leave it less.
    fn ballast(&self, bytes: u64) -> Result<()> {
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
            // Ours, and it does nothing; the disk goes when the last node in it has ended.
            let _ = holder.start_kill();
        }
    }
}

fn free(folder: &Path) -> Result<u64> {
    let stat = statvfs(folder)
        .map_err(|error| HarnessError::io(format!("look at {}", folder.display()))(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The process that holds the disk, or why there is none.
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
    let (mut said, mut complaint) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (BufReader::new(stdout), BufReader::new(stderr));
    let told = tokio::time::timeout(MOUNTED_WITHIN, stdout.read_line(&mut said)).await;
    match told {
        Ok(Ok(_)) if said.trim() == "mounted" => Ok((holder, pid)),
        Ok(_) => {
            let _ = stderr.read_line(&mut complaint).await;
            Err(complaint.trim().to_owned())
        }
        Err(_) => Err("mounting takes too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_small_disk_is_filled_and_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SmallDisk::make(&folder.path().join("data")).await.unwrap();
        if matches!(disk.kind, Kind::Reserve { .. }) {
            return;
        }
        let before = free(&disk.folder).unwrap();
        assert!(before <= TMPFS_MIB * MIB);
        disk.fill_to_reserve().unwrap();
        let left = free(&disk.folder).unwrap();
        assert!((80 * MIB..=90 * MIB).contains(&left), "{left}");
        disk.fill().unwrap();
        assert!(free(&disk.folder).unwrap() < 2 * MIB);
        assert!(std::fs::write(disk.folder.join("x"), vec![1; 4 << 20]).is_err());
        std::fs::remove_file(disk.folder.join("x")).unwrap();
        disk.empty().unwrap();
        assert!(free(&disk.folder).unwrap() > before - 2 * MIB);
    }
}
