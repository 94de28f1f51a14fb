//! Paths, and what they lead to.

use std::fmt;

use super::op::{Name, NameError};
use super::shown::{Directory, Lens, What};
use super::state::State;
use super::tables::Look;

/// A checked path in a tree: the names that lead there from the root, which has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreePath(Vec<Name>);

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub enum WalkError<E> {
    NotFound,
    /// Something on the way is a file, or a symbolic link: those are not followed.
    NotADirectory,
    Tables(E),
}

impl<E> From<E> for WalkError<E> {
    fn from(error: E) -> WalkError<E> {
        WalkError::Tables(error)
    }
}

impl TreePath {
    /// Returns the names that lead there.
    pub fn names(&self) -> &[Name] {
        &self.0
    }
}

impl From<Vec<Name>> for TreePath {
    fn from(names: Vec<Name>) -> TreePath {
        TreePath(names)
    }
}

/// Reads `/a/b`, or `a/b`; nothing or a slash alone is the root.
impl TryFrom<&[u8]> for TreePath {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<TreePath, NameError> {
        let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(TreePath::default());
        }
        bytes
            .split(|byte| *byte == b'/')
            .map(Name::try_from)
            .collect::<Result<_, _>>()
            .map(TreePath)
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{}", name.bytes().escape_ascii()))
    }
}

impl<T: Look> State<T> {
    /// Returns what some names lead to from the root.
    pub fn walk(&self, names: &[Name], lens: &impl Lens) -> Result<What, WalkError<T::Error>> {
        let mut at = What::Directory(Directory::root());
        for name in names {
            let What::Directory(directory) = at else { return Err(WalkError::NotADirectory) };
            at = self.find(&directory, name, lens)?.ok_or(WalkError::NotFound)?;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_and_nothing_else() {
        let names = |path: &[u8]| {
            let path = TreePath::try_from(path)?;
            Ok(path.names().iter().map(|name| name.bytes().to_vec()).collect::<Vec<_>>())
        };
        for root in [&b""[..], b"/"] {
            assert_eq!(names(root), Ok(Vec::new()));
        }
        for path in [&b"/a/b c"[..], b"a/b c"] {
            assert_eq!(names(path), Ok(vec![b"a".to_vec(), b"b c".to_vec()]));
        }
        for empty in [&b"//"[..], b"a//b", b"a/", b"//a"] {
            assert_eq!(names(empty), Err(NameError::Empty), "{}", empty.escape_ascii());
        }
        for forbidden in [&b"."[..], b"/a/../b", b"a/./b", b"a\0"] {
            assert_eq!(names(forbidden), Err(NameError::Forbidden), "{}", forbidden.escape_ascii());
        }
        assert_eq!(names(&[b'a'; 256]), Err(NameError::TooLong));
        assert_eq!(TreePath::try_from(&b"a/b"[..]).unwrap().to_string(), "/a/b");
    }
}
