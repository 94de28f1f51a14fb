//! A file system that a process of its own serves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::peer::await_event;
use crate::step::Failure;

/// A mount; dropping it unmounts.
pub struct Mounted {
    server: Child,
    point: PathBuf,
}

impl Mounted {
    /// Runs a command that stays in the foreground, and waits until its mount is there.
    pub fn start(command: &mut Command, point: &Path) -> Result<Self, Failure> {
        let what = format!("cannot mount by {command:?}");
        let fail = |error| Failure::new(&what, error);
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = server.spawn().map_err(fail)?;
        let mut mounted = Self { server, point: point.to_owned() };
        await_event(&mut mounted.server, "the mount is there", || is_mounted(point))
            .map_err(fail)?;
        Ok(mounted)
    }

    /// Returns the process that serves it.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("fusermount3").arg("-u").arg(&self.point).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Somebody uses it: whoever that is finds it dead rather than served for ever.
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

fn is_mounted(point: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == point))
}
