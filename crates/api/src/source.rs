//! How directories and files are described to a broker.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gate_core::fold::{self, fold_into};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::Node;

use crate::process;
use crate::wire::{Directory, Inode};

/// Describes a directory of this machine and all that lies above it.
pub fn directory(path: &Path) -> io::Result<Directory> {
    let path = path.canonicalize()?;
    let root = inode(&path)?;
    directory_known(&path, root)
}

/// Describes a directory that cannot be looked at by its path, absolute and free of links, for a
/// view may lie over it.
pub fn directory_known(path: &Path, root: Inode) -> io::Result<Directory> {
    let mut above = Vec::new();
    let mut below = path;
    while let (Some(parent), Some(name)) = (below.parent(), below.file_name()) {
        above.push((inode(parent)?, name.as_bytes().to_vec()));
        below = parent;
    }
    let path = path.as_os_str().as_bytes().to_vec();
    Ok(Directory { machine: process::machine(), path, root, above })
}

/// Returns what is at a path of a source, as keys have it; following no link, and taking no turn.
pub fn node(path: &Path) -> io::Result<Node> {
    let found = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Node::None),
        found => found?,
    };
    Ok(match found.file_type() {
        kind if kind.is_dir() => Node::Directory,
        kind if kind.is_file() => {
            let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
            let volume = volume(process::machine(), major, minor);
            Node::File(FileKey { volume, inode: found.ino(), generation: 0 })
        }
        _ => Node::None,
    })
}

/// Returns the number of a machine's file system, of both.
pub fn volume(machine: u64, major: u32, minor: u32) -> u64 {
    let device = (u64::from(major) << 32) | u64::from(minor);
    fold_into(machine ^ fold::BASIS, &device.to_le_bytes())
}

fn inode(path: &Path) -> io::Result<Inode> {
    let found = std::fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(Inode { device: found.dev(), number: found.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_lead_down_from_the_root() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let found = directory(&deep).unwrap();
        let names: Vec<&[u8]> = found.above.iter().rev().map(|(_, name)| &name[..]).collect();
        assert_eq!([b"/", &names.join(&b'/')[..]].concat(), found.path);
        assert_eq!(found.above.last().unwrap().0, inode(Path::new("/")).unwrap());
        assert!(directory(&home.path().join("none")).is_err());
    }

    #[test]
    fn a_file_is_known_by_its_number_under_every_name() {
        let home = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| home.path().join(name));
        assert_eq!(node(&one).unwrap(), Node::None);
        std::fs::write(&one, "").unwrap();
        std::fs::hard_link(&one, &other).unwrap();
        assert!(matches!(node(&one).unwrap(), Node::File(key) if key.inode > 0));
        assert_eq!(node(&one).unwrap(), node(&other).unwrap());
        assert_eq!(node(home.path()).unwrap(), Node::Directory);
    }
}
