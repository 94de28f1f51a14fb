//! Names and paths of a space: bytes, parsed once at the door.
//!
//! A [`ViewPath`] is relative to the root of its space, has no empty, `.` or `..` component and no
//! NUL, and is at most [`PATH_BYTES_MAX`] long. The root is the empty path, shown as `.`.

use std::fmt;
use std::sync::Arc;

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4095;

/// A checked path, relative to the root of a space.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewPath(Arc<[u8]>);

/// Why bytes are no [`ViewPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Longer than [`PATH_BYTES_MAX`].
    TooLong,
    /// Contains a NUL byte.
    Nul,
    /// Has a `..` component, which could lead out of the space.
    Parent,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::TooLong => write!(f, "path is longer than {PATH_BYTES_MAX} bytes"),
            PathError::Nul => f.write_str("path contains a NUL byte"),
            PathError::Parent => f.write_str("path has a `..` component"),
        }
    }
}

impl std::error::Error for PathError {}

impl ViewPath {
    /// Returns the root of a space.
    pub fn root() -> ViewPath {
        ViewPath(Arc::from(&b""[..]))
    }

    /// Parses a path as people and clients write it: leading and doubled slashes and `.`
    /// components carry no meaning and are dropped.
    pub fn parse(bytes: &[u8]) -> Result<ViewPath, PathError> {
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut clean = Vec::with_capacity(bytes.len().min(PATH_BYTES_MAX));
        for name in bytes.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(PathError::Parent),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(name);
        }
        if clean.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        Ok(ViewPath(Arc::from(clean)))
    }

    /// Returns the path as bytes; the root is empty.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the directories above this path, nearest first, ending with the root.
    pub fn ancestors(&self) -> impl Iterator<Item = ViewPath> + '_ {
        let mut rest: Option<&[u8]> = (!self.is_root()).then_some(&self.0);
        std::iter::from_fn(move || {
            let path = rest?;
            let parent = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => &path[..slash],
                None => &path[..0],
            };
            rest = (!parent.is_empty()).then_some(parent);
            Some(ViewPath(Arc::from(parent)))
        })
    }

    /// Returns this path as seen from a space in which its root lies at `prefix`.
    pub fn below(&self, prefix: &ViewPath) -> Result<ViewPath, PathError> {
        if prefix.is_root() {
            return Ok(self.clone());
        }
        if self.is_root() {
            return Ok(prefix.clone());
        }
        let joined = [prefix.as_bytes(), b"/", self.as_bytes()].concat();
        if joined.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        Ok(ViewPath(Arc::from(joined)))
    }

    /// Returns the part of this path beneath `top`: the root for `top` itself, `None` outside.
    pub fn beneath(&self, top: &ViewPath) -> Option<ViewPath> {
        if top.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(top.as_bytes())?;
        match rest.split_first() {
            None => Some(ViewPath::root()),
            Some((b'/', tail)) => Some(ViewPath(Arc::from(tail))),
            Some(_) => None,
        }
    }
}

impl fmt::Display for ViewPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ViewPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ViewPath {
        ViewPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn slashes_and_dots_carry_no_meaning() {
        assert_eq!(path("/a//b/./c/"), path("a/b/c"));
        assert_eq!(path("."), ViewPath::root());
        assert_eq!(path("/").to_string(), ".");
    }

    #[test]
    fn a_path_cannot_leave_its_space() {
        assert_eq!(ViewPath::parse(b"a/../b"), Err(PathError::Parent));
        assert_eq!(ViewPath::parse(b"a\0b"), Err(PathError::Nul));
        assert_eq!(ViewPath::parse(&[b'a'; 4096]), Err(PathError::TooLong));
        assert!(ViewPath::parse(&[b'a'; 4095]).is_ok());
    }

    #[test]
    fn ancestors_end_with_the_root() {
        let above: Vec<String> = path("a/b/c").ancestors().map(|p| p.to_string()).collect();
        assert_eq!(above, ["a/b", "a", "."]);
        assert_eq!(ViewPath::root().ancestors().count(), 0);
    }

    #[test]
    fn below_and_beneath_are_inverse() {
        let prefix = path("repo/src");
        for text in ["", "a", "a/b"] {
            let inner = path(text);
            assert_eq!(inner.below(&prefix).unwrap().beneath(&prefix), Some(inner));
        }
        assert_eq!(path("repo/srcs").beneath(&prefix), None);
    }

    #[test]
    fn names_that_are_not_utf8_are_shown_by_their_bytes() {
        let odd = ViewPath::parse(b"a\xff/b").unwrap();
        assert_eq!(odd.to_string(), "a\\xff/b");
    }
}
