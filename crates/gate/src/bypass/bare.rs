//! Where a source lies bare, by a table of mounts.

use std::path::{Path, PathBuf};

use gate_api::mounts::{self, Mount};

use super::tables::{Spot, joined};

/// A source and what is mounted in it, as file systems have them.
#[derive(Debug)]
pub struct Bare {
    source: PathBuf,
    /// The group of the mount that it lies in: a view over it is mounted in all of them.
    shared: Option<u64>,
    /// The source first.
    parts: Vec<Part>,
}

/// A directory of a file system.
#[derive(Debug)]
struct Part {
    spot: Spot,
    /// Where the source has it.
    path: PathBuf,
}

/// Where something of a source lies, past all views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it lies.
    pub path: PathBuf,
    /// What of the source lies there.
    pub shows: PathBuf,
    /// The mount point of the mount that shows it there.
    pub mount: PathBuf,
}

/// Which views are reckoned with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// Those that there are.
    AsTheyAre,
    /// One that is to be mounted over the source, too, wherever that tells of it.
    OneMoreOverIt,
}

impl Bare {
    /// Finds out what a source is, beneath the views that may lie over it.
    pub fn of(table: &[Mount], source: &Path) -> Bare {
        let bare: Vec<Mount> = table.iter().filter(|mount| !mount.is_gated).cloned().collect();
        let own = mounts::innermost(&bare, source);
        let inside = bare.iter().filter(|mount| {
            let lies_there = mounts::innermost(&bare, &mount.point);
            mount.point.starts_with(source)
                && mount.point != source
                && lies_there.is_some_and(|there| there.id == mount.id)
        });
        let part = |mount: &Mount, path: &Path| {
            Some(Part { spot: Spot::by(mount, path)?, path: path.to_owned() })
        };
        let own_part = own.and_then(|mount| part(mount, source));
        let parts = own_part.into_iter().chain(inside.filter_map(|at| part(at, &at.point)));
        Bare {
            source: source.to_owned(),
            shared: own.and_then(|mount| mount.shared),
            parts: parts.collect(),
        }
    }

    /// Returns where it lies bare by a table, its own path first.
    pub fn places(&self, table: &[Mount], views: Views) -> Vec<Place> {
        let meant = || table.iter().filter(|mount| views == Views::AsTheyAre || !self.tells(mount));
        let of_part = |part| meant().filter_map(move |mount| place(part, mount, table));
        let mut places: Vec<Place> = self.parts.iter().flat_map(of_part).collect();
        places.sort_by_key(|place| place.path != self.source);
        if places.first().is_some_and(|first| first.path == self.source) {
            // What is mounted in the source is reached by its path, too.
            places.retain(|at| at.path == self.source || !at.path.starts_with(&self.source));
        }
        places
    }

    /// Returns the paths beneath which all lies that a process can have of it by these mounts, and maybe
    /// more: something else may be mounted over them.
    pub fn ways<'a>(&self, mounts: impl Iterator<Item = &'a Mount>) -> Vec<PathBuf> {
        let of_mount = |mount| self.parts.iter().filter_map(move |part| shown(part, mount));
        let mut ways: Vec<PathBuf> = mounts.flat_map(of_mount).map(|(path, _)| path).collect();
        ways.sort();
        ways.dedup();
        ways
    }

    /// Returns whether what is mounted over the source is mounted there, too.
    fn tells(&self, mount: &Mount) -> bool {
        self.shared.is_some() && (mount.shared == self.shared || mount.master == self.shared)
    }

    /// Returns whether something of it, or in it, lies there.
    pub fn has(&self, spot: &Spot) -> bool {
        let is_in =
            |part: &Part| part.spot.device == spot.device && spot.path.starts_with(&part.spot.path);
        self.parts.iter().any(is_in)
    }
}

/// Returns where a mount shows some of a part, and what of the source that is.
fn shown(part: &Part, mount: &Mount) -> Option<(PathBuf, PathBuf)> {
    let Part { spot, path } = part;
    if mount.device != spot.device {
        return None;
    }
    Some(match spot.path.strip_prefix(&mount.root) {
        Ok(below) => (joined(&mount.point, below), path.clone()),
        Err(_) => {
            let below = mount.root.strip_prefix(&spot.path).ok()?;
            (mount.point.clone(), joined(path, below))
        }
    })
}

/// Returns where a mount of a table shows some of a part, if it is to be seen there.
fn place(part: &Part, mount: &Mount, table: &[Mount]) -> Option<Place> {
    let (path, shows) = shown(part, mount)?;
    // Something else may be mounted over it: a view, for one.
    let seen = mounts::innermost(table, &path)?;
    (seen.id == mount.id).then(|| Place { path, shows, mount: mount.point.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(table: &str, expected: &[(&str, &str)]) {
        let table = mounts::parse(table.as_bytes());
        let places = Bare::of(&table, Path::new("/srv/s")).places(&table, Views::AsTheyAre);
        let places: Vec<_> = places
            .iter()
            .map(|place| (place.path.to_str().unwrap(), place.shows.to_str().unwrap()))
            .collect();
        assert_eq!(places, expected, "{table:?}");
    }

    const ROOT: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
    const OVER: &str = "9 1 0:9 / /srv/s rw - fuse.gate /srv/s rw,user_id=0\n";
    const BESIDE: &str = "8 1 0:8 / /view rw - fuse.gate /srv/s rw,user_id=0\n";

    fn lines(lines: &[&str]) -> String {
        lines.concat()
    }

    #[test]
    fn a_path_is_open_unless_a_view_lies_over_it() {
        check(&lines(&[ROOT, BESIDE]), &[("/srv/s", "/srv/s")]);
        check(&lines(&[ROOT, OVER]), &[]);
        check(&lines(&[ROOT, BESIDE, OVER]), &[]);
    }

    #[test]
    fn other_mounts_of_it_of_what_is_above_and_of_parts_are_found() {
        let same = "2 1 8:1 /srv/s /bind rw - ext4 /dev/sda1 rw\n";
        let above = "3 1 8:1 / /mnt rw - ext4 /dev/sda1 rw\n";
        let part = "4 1 8:1 /srv/s/d /part rw - ext4 /dev/sda1 rw\n";
        let beside = "5 1 8:1 /srv/other /o rw - ext4 /dev/sda1 rw\n";
        let foreign = "6 1 8:2 /srv/s /f rw - ext4 /dev/sdb1 rw\n";
        check(
            &lines(&[ROOT, same, above, part, beside, foreign, OVER]),
            &[("/bind", "/srv/s"), ("/mnt/srv/s", "/srv/s"), ("/part", "/srv/s/d")],
        );
    }

    #[test]
    fn a_view_to_be_covers_its_peers_as_well() {
        let root = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n";
        let peer = "3 1 8:1 / /peer rw shared:1 - ext4 /dev/sda1 rw\n";
        let slave = "4 1 8:1 / /slave rw master:1 - ext4 /dev/sda1 rw\n";
        let alone = "5 1 8:1 / /alone rw - ext4 /dev/sda1 rw\n";
        let table = mounts::parse(lines(&[root, peer, slave, alone]).as_bytes());
        let bare = Bare::of(&table, Path::new("/srv/s"));
        let paths = |views| bare.places(&table, views).into_iter().map(|at| at.path).collect();
        let now: Vec<PathBuf> = paths(Views::AsTheyAre);
        assert_eq!(
            now,
            ["/srv/s", "/peer/srv/s", "/slave/srv/s", "/alone/srv/s"].map(PathBuf::from)
        );
        let then: Vec<PathBuf> = paths(Views::OneMoreOverIt);
        assert_eq!(then, [PathBuf::from("/alone/srv/s")]);
    }

    /// As where mounts propagate to a bind mount of what is above.
    #[test]
    fn a_mount_with_a_view_over_it_or_something_else_shows_nothing() {
        let above = "3 1 8:1 / /mnt rw - ext4 /dev/sda1 rw\n";
        let view = "10 3 0:9 / /mnt/srv/s rw - fuse.gate /srv/s rw,user_id=0\n";
        check(&lines(&[ROOT, above, OVER, view]), &[]);
        let empty = "11 3 0:11 / /mnt/srv rw - tmpfs tmpfs rw\n";
        check(&lines(&[ROOT, above, OVER, empty]), &[]);
    }

    /// What a process has may lie beneath what is mounted over it by now.
    #[test]
    fn what_can_be_had_of_it_lies_beneath_these_paths_whatever_lies_over_them() {
        let above = "3 1 8:1 / /mnt rw - ext4 /dev/sda1 rw\n";
        let part = "4 1 8:1 /srv/s/d /part rw - ext4 /dev/sda1 rw\n";
        let beside = "5 1 8:1 /srv/other /o rw - ext4 /dev/sda1 rw\n";
        let table = mounts::parse(lines(&[ROOT, OVER, above, part, beside]).as_bytes());
        let ways = Bare::of(&table, Path::new("/srv/s")).ways(table.iter());
        assert_eq!(ways, ["/mnt/srv/s", "/part", "/srv/s"].map(PathBuf::from));
    }

    #[test]
    fn what_is_mounted_in_it_is_of_it() {
        let inner = "2 1 8:5 / /srv/s/data rw - ext4 /dev/sdc1 rw\n";
        let elsewhere = "3 1 8:5 / /data rw - ext4 /dev/sdc1 rw\n";
        check(&lines(&[ROOT, inner, OVER]), &[]);
        check(&lines(&[ROOT, inner, elsewhere, OVER]), &[("/data", "/srv/s/data")]);
        let both = [("/srv/s", "/srv/s"), ("/data", "/srv/s/data")];
        check(&lines(&[ROOT, inner, elsewhere, BESIDE]), &both);
    }
}
