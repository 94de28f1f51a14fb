//! Whom mode bits let come to a path.

use std::fmt;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use gate_api::mounts::Mount;
use rustix::fs::Mode;
use serde::Serialize;

/// Who may search all directories on the way, and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "who", content = "id", rename_all = "lowercase")]
pub enum Access {
    /// Any user.
    Everybody,
    /// Those of one group, by its id.
    Group(u32),
    /// One user, by its id.
    User(u32),
}

impl Access {
    /// Looks at a directory and those above it; `None` if there is none.
    pub fn of(table: &[Mount], path: &Path) -> Option<Access> {
        let mut narrowest = Access::Everybody;
        // From the root on: beyond what this user may not search nothing can be seen.
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        for directory in way {
            // A view may hang.
            if table.iter().any(|mount| mount.is_gated && mount.point == directory) {
                return Some(narrowest);
            }
            match directory.metadata() {
                Ok(found) => {
                    let mode = Mode::from_raw_mode(found.permissions().mode());
                    narrowest = narrowest.max(Access::by(mode, found.uid(), found.gid()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => break,
                Err(_) => return None,
            }
        }
        Some(narrowest)
    }

    fn by(mode: Mode, user: u32, group: u32) -> Access {
        match (mode.contains(Mode::XOTH), mode.contains(Mode::XGRP)) {
            (true, _) => Access::Everybody,
            (false, true) => Access::Group(group),
            (false, false) => Access::User(user),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Everybody => f.write_str("everybody"),
            Access::Group(id) => write!(f, "group {id}"),
            Access::User(id) => f.write_str(&user(*id)),
        }
    }
}

/// Returns the words for a user.
pub fn user(id: u32) -> String {
    match id {
        0 => "root".to_owned(),
        id => format!("user {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_directory_says_who_may_pass() {
        let by = |mode| Access::by(Mode::from_raw_mode(mode), 7, 8);
        let of = [0o755, 0o751, 0o750, 0o710, 0o700, 0o644].map(by);
        let [everybody, group, user] = [Access::Everybody, Access::Group(8), Access::User(7)];
        assert_eq!(of, [everybody, everybody, group, group, user, user]);
        assert_eq!(of.iter().max(), Some(&user));
    }
}
