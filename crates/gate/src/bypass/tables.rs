//! The tables of mounts of all namespaces that can be seen, and what processes have by them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gate_api::mounts::{self, Mount};

use crate::processes::{self, Grip, Mark};

/// They, by the kernel's number of the namespace.
#[derive(Debug)]
pub struct Tables {
    own: Vec<Mount>,
    others: BTreeMap<u64, Table>,
}

/// That of a namespace which is not this process'.
#[derive(Debug)]
pub struct Table {
    /// A process in it, of Gate only if all in it are.
    pub pid: u32,
    /// Whether all are.
    is_gates: bool,
    /// Its mounts.
    pub mounts: Vec<Mount>,
}

/// A place as its file system has it, by whatever mount it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file system.
    pub device: (u32, u32),
    /// The path in it.
    pub path: PathBuf,
}

impl Spot {
    /// Returns where a path beneath a mount leads.
    pub fn by(mount: &Mount, path: &Path) -> Option<Spot> {
        let below = path.strip_prefix(&mount.point).ok()?;
        Some(Spot { device: mount.device, path: joined(&mount.root, below) })
    }
}

impl Tables {
    /// Reads them.
    pub fn read() -> Tables {
        let number = |of: &str| fs::metadata(format!("/proc/{of}/ns/mnt")).ok().map(|ns| ns.ino());
        let own = number("self");
        let mut others: BTreeMap<u64, Table> = BTreeMap::new();
        // Threads of the kernel have no program, and open nothing.
        let has_program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        for pid in processes::all().flat_map(processes::with_own_directories) {
            let found = number(&pid.to_string()).filter(|found| Some(*found) != own);
            let Some(namespace) = found.filter(|_| has_program(pid)) else { continue };
            let known = others.entry(namespace).or_insert_with(|| Table::of(pid));
            if known.is_gates && !processes::is_of_gate(pid) {
                (known.pid, known.is_gates) = (pid, false);
            }
        }
        Tables { own: mounts::all().unwrap_or_default(), others }
    }

    /// Returns this process' own.
    pub fn own(&self) -> &[Mount] {
        &self.own
    }

    /// Returns those of namespaces in which there are programs that are not of Gate.
    pub fn others(&self) -> impl Iterator<Item = (u64, &Table)> {
        let of_others = self.others.iter().filter(|(_, table)| !table.is_gates);
        of_others.map(|(namespace, table)| (*namespace, table))
    }

    /// Returns the mounts of all.
    pub fn mounts(&self) -> impl Iterator<Item = &Mount> {
        self.own.iter().chain(self.others.values().flat_map(|table| &table.mounts))
    }

    /// Returns where something lies that a process has.
    pub fn spot(&self, grip: &Grip) -> Option<Spot> {
        if !grip.path.is_absolute() {
            return None;
        }
        let mut all = self.mounts();
        match grip.mark()? {
            Mark::Mount(id) => Spot::by(all.find(|mount| mount.id == id)?, &grip.path),
            // Of a mapping the mount is not told.
            Mark::Device(device) => {
                let above = all
                    .filter(|mount| mount.device == device && grip.path.starts_with(&mount.point));
                let mount = above.max_by_key(|mount| mount.point.components().count())?;
                Spot::by(mount, &grip.path)
            }
        }
    }
}

impl Table {
    fn of(pid: u32) -> Table {
        let table = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let is_gates = processes::is_of_gate(pid);
        Table { pid, is_gates, mounts: mounts::parse(&table) }
    }
}

/// Joins without a slash at the end.
pub fn joined(path: &Path, below: &Path) -> PathBuf {
    match below.as_os_str().is_empty() {
        true => path.to_owned(),
        false => path.join(below),
    }
}
