//! A daemon of a run's own.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::home::Home;

/// A daemon with its state somewhere in a home; it has ended when this is dropped.
pub struct Keeper<'a> {
    home: &'a Home,
    state_dir: PathBuf,
}

impl<'a> Keeper<'a> {
    /// Says where its state is to be; starts nothing.
    pub fn new(home: &'a Home, state_dir: PathBuf) -> Keeper<'a> {
        Keeper { home, state_dir }
    }

    /// Returns where its state is.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Starts it, and waits until it answers.
    pub fn start(&self) -> io::Result<()> {
        self.gate(&["daemon", "start"]).map(drop)
    }

    /// Ends it.
    pub fn stop(&self) -> io::Result<()> {
        self.gate(&["daemon", "stop"]).map(drop)
    }

    /// Runs a command that finds it; returns what that printed.
    pub fn gate(&self, words: &[&str]) -> io::Result<Vec<u8>> {
        let done = self.home.gate(words).env("GATE_STATE_DIR", &self.state_dir).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        let failed = || io::Error::other(format!("gate {}: {said}", words.join(" ")));
        if done.status.success() { Ok(done.stdout) } else { Err(failed()) }
    }

    /// Runs a command that prints JSON.
    pub fn told(&self, words: &[&str]) -> io::Result<Value> {
        Ok(serde_json::from_slice(&self.gate(words)?)?)
    }

    /// Returns its process.
    pub fn pid(&self) -> io::Result<u32> {
        pid_in(&self.told(&["daemon", "status", "--json"])?["broker"]["pid"])
    }
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        // It has ended already, where nothing failed.
        let _ = self.gate(&["daemon", "stop", "--lazy"]);
    }
}

/// Reads the number of a process.
pub fn pid_in(told: &Value) -> io::Result<u32> {
    let pid = told.as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.ok_or_else(|| io::Error::other("no process serves it"))
}
