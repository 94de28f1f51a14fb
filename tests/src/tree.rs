//! Trees as text, to compare a view with its twin: names, kinds, modes, links, contents.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Asserts that two trees are the same, but for what lies below the names in `except`.
#[track_caller]
pub fn assert_same(expected: &Path, found: &Path, except: &[&str]) {
    let [expected_lines, found_lines] = [expected, found].map(|dir| lines_of(dir, except));
    let mut differences = String::new();
    for (path, line) in &expected_lines {
        if found_lines.get(path) != Some(line) {
            let _ = writeln!(differences, "expected {path} {line}");
        }
    }
    for (path, line) in &found_lines {
        if expected_lines.get(path) != Some(line) {
            let _ = writeln!(differences, "found    {path} {line}");
        }
    }
    let [expected, found] = [expected, found].map(Path::display);
    assert!(differences.is_empty(), "{found} is not as {expected}:\n{differences}");
}

/// Describes each file below `dir` in a line, by its path.
fn lines_of(dir: &Path, except: &[&str]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for path in children(&next) {
            let name = path.strip_prefix(dir).expect("a child lies below its parent");
            if except.iter().any(|e| name.starts_with(e)) {
                continue;
            }
            let name = name.as_os_str().as_bytes().escape_ascii().to_string();
            lines.insert(name, describe(&path));
            if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                dirs.push(path);
            }
        }
    }
    lines
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
    list.map(|entry| entry.expect("a directory can be read to its end").path()).collect()
}

fn describe(path: &Path) -> String {
    let fail = |error| panic!("cannot read {}: {error}", path.display());
    let meta = path.symlink_metadata().unwrap_or_else(fail);
    let kind = meta.file_type();
    let mode = meta.mode() & 0o7777;
    let owner = format!("{}:{}", meta.uid(), meta.gid());
    if kind.is_dir() {
        format!("directory {mode:o} {owner}")
    } else if kind.is_symlink() {
        format!("link {:?} {owner}", fs::read_link(path).unwrap_or_else(|e| panic!("{e}")))
    } else if kind.is_file() {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let sum = hasher.finish();
        format!("file {mode:o} {owner} {} links, {} bytes, {sum:016x}", meta.nlink(), bytes.len())
    } else if kind.is_fifo() || kind.is_socket() {
        format!("{kind:?} {mode:o} {owner}")
    } else {
        format!("device {:x} {mode:o} {owner}", meta.rdev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_mode_and_a_missing_file_are_differences() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        for side in [&a, &b] {
            fs::create_dir(side).unwrap();
            fs::write(side.join("same"), "x").unwrap();
        }
        assert_same(&a, &b, &[]);
        fs::write(b.join("more"), "x").unwrap();
        assert_same(&a, &b, &["more"]);
        let outcome = std::panic::catch_unwind(|| assert_same(&a, &b, &[]));
        let message = *outcome.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("found    more file 644"), "{message}");
    }
}
