//! Ways past the views of a source: how somebody could still come to the bare directory.
//!
//! What the tables of mounts, mode bits and /proc tell, as far as this user may look; no view is
//! asked, so a dead one does not hang this. Hard links that lead out of a source, and rights beyond
//! mode bits, are not looked for.

mod access;
mod bare;
mod others;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gate_api::mounts::Mount;
use gate_view::written;
use serde::Serialize;

use crate::output;
use crate::processes::{self, User};
pub use access::Access;
use bare::Place;
pub use bare::{Bare, Views};
pub use others::{Namespace, seeing};
pub use tables::{Table, Tables};

/// The ways past the views of one source, the worst first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bypasses {
    /// The source.
    #[serde(with = "written")]
    pub source: PathBuf,
    /// The ways.
    pub ways: Vec<Bypass>,
}

/// One way past the views of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "way", rename_all = "kebab-case")]
pub enum Bypass {
    /// The source's own path is open: its views are elsewhere.
    BarePath {
        /// Who may go there.
        open_to: Access,
    },
    /// The source, or a part of it, is mounted elsewhere, too.
    OtherMount {
        /// Where it lies bare.
        #[serde(with = "written")]
        path: PathBuf,
        /// What lies there: the source, or what of it.
        #[serde(with = "written")]
        shows: PathBuf,
        /// The mount point of the mount that shows it.
        #[serde(with = "written")]
        mount: PathBuf,
        /// Who may go there.
        open_to: Access,
    },
    /// Programs have something of the bare directory: from before a view was put over it, or by
    /// one of the ways above.
    BareUse {
        /// Each process with one thing that it has.
        users: Vec<User>,
    },
    /// Programs see mounts of their own, and the directory bare among them.
    OtherNamespace {
        /// Each namespace with one of its processes.
        namespaces: Vec<Namespace>,
    },
    /// Who could always unmount the views, or look into their servers.
    Privileged {
        /// The ids of these users.
        users: Vec<u32>,
    },
}

/// A view that somebody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What it shows.
    pub source: PathBuf,
    /// Who mounted it, if that is known.
    pub user: Option<u32>,
}

impl From<&Mount> for Shown {
    fn from(view: &Mount) -> Shown {
        Shown { source: view.source.clone(), user: view.user }
    }
}

/// Finds the ways past these views, source by source.
pub fn find(views: impl IntoIterator<Item = Shown>) -> Vec<Bypasses> {
    let mut sources: BTreeMap<PathBuf, BTreeSet<u32>> = BTreeMap::new();
    for Shown { source, user } in views {
        // Root always may.
        sources.entry(source).or_default().extend(user.into_iter().chain([0]));
    }
    if sources.is_empty() {
        return Vec::new();
    }
    let tables = Tables::read();
    let of_source = |(source, users): (PathBuf, BTreeSet<u32>)| {
        let mut ways = ways(&tables, &source);
        ways.push(Bypass::Privileged { users: users.into_iter().collect() });
        Bypasses { source, ways }
    };
    sources.into_iter().map(of_source).collect()
}

fn ways(tables: &Tables, source: &Path) -> Vec<Bypass> {
    let (table, bare) = (tables.own(), Bare::of(tables.own(), source));
    let mut ways = Vec::new();
    for Place { path, shows, mount } in bare.places(table, Views::AsTheyAre) {
        match Access::of(table, &path) {
            // Root gets everywhere.
            None | Some(Access::User(0)) => {}
            Some(open_to) if path == source => ways.push(Bypass::BarePath { open_to }),
            Some(open_to) => ways.push(Bypass::OtherMount { path, shows, mount, open_to }),
        }
    }
    let users = users_of(&bare, tables);
    if !users.is_empty() {
        ways.push(Bypass::BareUse { users });
    }
    let namespaces = seeing(&bare, tables, Views::AsTheyAre);
    if !namespaces.is_empty() {
        ways.push(Bypass::OtherNamespace { namespaces });
    }
    ways
}

/// Returns who has something of a bare directory, or in it, but for programs of Gate: brokers and
/// views have directories open, and take turns.
pub fn users_of(bare: &Bare, tables: &Tables) -> Vec<User> {
    // A path is compared sooner than it is found out by which mount it was come to.
    let ways = bare.ways(tables.mounts());
    let mut users = processes::users_where(|grip| {
        ways.iter().any(|way| grip.path.starts_with(way))
            && tables.spot(grip).is_some_and(|at| bare.has(&at))
    });
    users.retain(|user| !processes::is_of_gate(user.pid));
    users
}

impl Bypass {
    /// Returns the words for people.
    pub fn text(&self) -> String {
        match self {
            Bypass::BarePath { open_to } => format!("its own path is open to {open_to}"),
            Bypass::OtherMount { path, shows, open_to, .. } => {
                let (path, shows) = (path.display(), shows.display());
                format!("{shows} is mounted bare at {path}, open to {open_to}")
            }
            Bypass::BareUse { users } => {
                format!("in use past the view: {}", processes::named(users))
            }
            Bypass::OtherNamespace { namespaces } => {
                let names: Vec<String> = namespaces.iter().map(Namespace::to_string).collect();
                format!("bare among other mounts, at {}", output::some_of(&names))
            }
            Bypass::Privileged { users } => {
                let names: Vec<String> = users.iter().map(|user| access::user(*user)).collect();
                format!("{} could unmount the view, or look into its server", names.join(" and "))
            }
        }
    }

    /// Says how to close it, if it can be closed.
    pub fn closed_by(&self, source: &Path) -> Option<String> {
        let hidden = "keep it in a directory that is open to root alone";
        let covered = |path: &Path| {
            format!("`gate mount {}` puts a view over it; or {hidden}", path.display())
        };
        Some(match self {
            Bypass::BarePath { .. } => covered(source),
            // That shows more than what is to be closed.
            Bypass::OtherMount { path, shows, mount, .. } if source.starts_with(mount) => {
                match shows == source {
                    true => covered(path),
                    false => hidden.to_owned(),
                }
            }
            Bypass::OtherMount { mount, .. } => format!("`umount {}`", mount.display()),
            Bypass::BareUse { .. } => {
                "let them end, or leave the directory and close their files".to_owned()
            }
            Bypass::OtherNamespace { .. } => {
                "let them end, and start them again where they see the view".to_owned()
            }
            Bypass::Privileged { .. } => return None,
        })
    }
}
