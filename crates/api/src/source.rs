//! How a directory is described to a broker.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::process;
use crate::wire::{Directory, Inode};

/// Describes a directory of this machine and all that lies above it.
pub fn directory(path: &Path) -> io::Result<Directory> {
    let path = path.canonicalize()?;
    let root = inode(&path)?;
    let mut above = Vec::new();
    let mut below = path.as_path();
    while let (Some(parent), Some(name)) = (below.parent(), below.file_name()) {
        above.push((inode(parent)?, name.as_bytes().to_vec()));
        below = parent;
    }
    let path = path.into_os_string().into_vec();
    Ok(Directory { machine: process::machine(), path, root, above })
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
}
