//! Mount namespaces other than this one, in which a source may lie bare.

use std::fmt;
use std::path::PathBuf;

use gate_view::written;
use serde::Serialize;

use super::bare::{Bare, Views};
use super::tables::{Table, Tables};
use crate::processes;

/// A mount namespace in which a source lies bare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// The kernel's number of it.
    pub namespace: u64,
    /// A process in it.
    pub pid: u32,
    /// The command of that.
    pub command: String,
    /// Where it sees the source, or a part of it.
    #[serde(with = "written")]
    pub path: PathBuf,
}

/// Returns those in which a program that is not of Gate sees a source bare.
pub fn seeing(bare: &Bare, tables: &Tables, views: Views) -> Vec<Namespace> {
    let sees = |(namespace, table): (u64, &Table)| {
        // Its own path comes first, and says less than another.
        let path = bare.places(&table.mounts, views).pop()?.path;
        let command = processes::command_of_pid(table.pid)?;
        Some(Namespace { namespace, pid: table.pid, command, path })
    };
    tables.others().filter_map(sees).collect()
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Namespace { pid, command, path, .. } = self;
        write!(f, "{} of {command} (process {pid})", path.display())
    }
}
