//! The kernel's table of mounts.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type of a gated view in the table.
const KIND: &[u8] = b"fuse.gate";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which it is, as long as it is mounted.
    pub id: u64,
    /// Which mount it is mounted on.
    pub parent: u64,
    /// Its file system: major and minor number.
    pub device: (u32, u32),
    /// What of its file system it shows.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The group of mounts with which it shares what is mounted in it …
    pub shared: Option<u64>,
    /// … and the one from which it learns that.
    pub master: Option<u64>,
    /// The type of its file system.
    pub kind: OsString,
    /// What: of a gated view its source.
    pub source: PathBuf,
    /// Whether it is a gated view.
    pub is_gated: bool,
    /// Of a file system served by a program: the user whom the kernel knows to have mounted it.
    pub user: Option<u32>,
}

impl Mount {
    /// Returns whether a program may serve it.
    pub fn is_fuse(&self) -> bool {
        self.kind.as_bytes().starts_with(b"fuse")
    }
}

/// Returns all mounts this process can see, oldest first.
pub fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Returns the uppermost mount at exactly this path.
pub fn at(point: &Path) -> io::Result<Option<Mount>> {
    Ok(uppermost(&all()?, point).cloned())
}

/// Returns the uppermost mount of a table at exactly this path.
pub fn uppermost<'a>(table: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    table.iter().rfind(|mount| mount.point == point)
}

/// Returns the mount that a path, absolute and free of links, lies in.
pub fn of(path: &Path) -> io::Result<Option<Mount>> {
    Ok(innermost(&all()?, path).cloned())
}

/// Returns the mount of a table that a path lies in.
pub fn innermost<'a>(table: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let on_the_way = |mount: &&Mount| path.starts_with(&mount.point);
    let is_first = |mount: &Mount| table.iter().all(|other| other.id != mount.parent);
    let is_on = |mount: &Mount, on: Option<&Mount>| match on {
        Some(on) => mount.parent == on.id && mount.id != on.id,
        None => is_first(mount) || mount.parent == mount.id,
    };
    // From mount to mount, as the kernel walks: what lies under another mount is not on the way.
    let mut found = None;
    loop {
        let next = table.iter().filter(on_the_way).filter(|mount| is_on(mount, found));
        match next.min_by_key(|mount| mount.point.components().count()) {
            Some(next) => found = Some(next),
            None => return found,
        }
    }
}

/// Reads a table of mounts.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point options shared:1 master:2 - type source options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let (mut shared, mut master) = (None, None);
    for tag in fields.by_ref().skip(1).take_while(|field| *field != b"-") {
        shared = shared.or_else(|| number(tag.strip_prefix(b"shared:")?));
        master = master.or_else(|| number(tag.strip_prefix(b"master:")?));
    }
    let kind = fields.next()?;
    let source = unescape(fields.next()?);
    let mut options = fields.next()?.split(|byte| *byte == b',');
    let user = options.find_map(|option| option.strip_prefix(b"user_id="));
    let user = user.and_then(|user| str::from_utf8(user).ok()?.parse().ok());
    let (is_gated, kind) = (kind == KIND, OsString::from_vec(kind.to_owned()));
    Some(Mount { id, parent, device, root, point, shared, master, kind, source, is_gated, user })
}

fn number(field: &[u8]) -> Option<u64> {
    str::from_utf8(field).ok()?.parse().ok()
}

/// The kernel writes what would part fields as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_blanks_in_its_names() {
        let table = br"22 1 8:1 / / rw - ext4 /dev/sda1 rw
36 22 0:98 / /tmp/a\040b rw,nosuid shared:1 master:7 - fuse.gate /s\134x rw,user_id=7,group_id=0
";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert!(!mounts[0].is_gated);
        let gated = Mount {
            id: 36,
            parent: 22,
            device: (0, 98),
            root: "/".into(),
            point: "/tmp/a b".into(),
            shared: Some(1),
            master: Some(7),
            kind: "fuse.gate".into(),
            source: r"/s\x".into(),
            is_gated: true,
            user: Some(7),
        };
        assert_eq!(mounts[1], gated);
    }

    #[test]
    fn a_path_lies_in_what_was_mounted_over_it_last() {
        let table = parse(
            br"1 0 8:1 / / rw - ext4 a rw
2 1 8:2 / /a/b rw - ext4 b rw
3 1 0:3 / /a rw - tmpfs c rw
4 3 0:4 / /a rw - tmpfs d rw
5 4 0:5 / /a/d rw - tmpfs e rw
",
        );
        let found = |path: &str| innermost(&table, Path::new(path)).unwrap().id;
        let found = ["/", "/c", "/a", "/a/b", "/a/b/c", "/a/d", "/ab"].map(found);
        assert_eq!(found, [1, 1, 4, 4, 4, 5, 1]);
    }
}
