//! What differs between two versions of a bucket.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, Instant};

use gate_bucket::vault::Vault;
use gate_core::tree::diff::{Change, Difference, Held, Node};
use gate_core::tree::op::{Kind as NodeKind, Name};
use gate_core::tree::walk::TreePath;
use similar::TextDiff;

use super::files::{AnyTree, cannot, not_done, not_read, read_path, told};
use super::{Buckets, lock, refusal};
use crate::daemon::body::WrittenPath;
use crate::daemon::body::bucket::{self as body, Differences, Side};
use crate::daemon::refusal::{Kind, Refusal};

/// Of so many differences an answer tells.
const TOLD_MAX: usize = 100_000;
/// The lines of longer files are not compared.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// So many bytes of lines an answer has, and then those of the last file.
const LINES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// After so long no shorter way from one text to the other is looked for.
const COMPARED_MAX: Duration = Duration::from_secs(5);
/// What comes before what was done last.
const BEFORE_THE_LAST: &str = "~1";

/// What a file holds, and the tree in which it was found; nothing where there is none.
type Content<'a> = Option<(&'a AnyTree, Held)>;

/// From where on it is told what differs.
#[derive(Clone, Copy, Debug)]
pub enum Since<'a> {
    /// What was there before the last change.
    BeforeTheLast,
    /// What was there in a version.
    Version(&'a str),
    /// Nothing.
    Nothing,
}

/// Compares the lines of files.
struct Lines {
    vault: Vault,
    /// Lines for which there is room in the answer, in bytes.
    room: usize,
    until: Instant,
    /// Of so many files the lines are not told.
    left_out: u64,
}

impl Buckets {
    /// Returns what differs between two versions, at a path and in what is there: without the second up to what is
    /// there now.
    pub fn diff(
        &self,
        words: &str,
        path: &[u8],
        (since, to): (Since<'_>, Option<&str>),
        with_lines: bool,
    ) -> Result<Differences, Refusal> {
        let bucket = self.get(words)?;
        let path = read_path(path)?;
        let (before, after, vault, lens) = {
            let mut bucket = lock(&bucket)?;
            let before = match since {
                Since::Nothing => AnyTree::nothing(),
                Since::Version(from) => AnyTree::of(&mut bucket, Some(from))?,
                Since::BeforeTheLast => match AnyTree::of(&mut bucket, Some(BEFORE_THE_LAST)) {
                    // Before all that was done there was nothing.
                    Err(refusal) if refusal.kind == Kind::NotFound => AnyTree::nothing(),
                    before => before?,
                },
            };
            let after = AnyTree::of(&mut bucket, to)?;
            (before, after, bucket.vault().map_err(refusal)?, bucket.lens())
        };
        if before.walk(path.names(), &lens).is_err() {
            let there = after.walk(path.names(), &lens);
            there.map_err(|error| cannot("find", &path, not_done(error)))?;
        }
        let mut changes = before.diff(&after, &lens).map_err(not_read)?;
        changes.retain(|change| is_in(change, path.names()));
        if changes.len() > TOLD_MAX {
            let message = format!("more than {TOLD_MAX} things differ");
            return Err(Refusal::new(Kind::Limit, message, "name a path"));
        }
        let until = Instant::now() + COMPARED_MAX;
        let mut lines = Lines { vault, room: LINES_BYTES_MAX, until, left_out: 0 };
        let mut differences = Vec::new();
        for change in changes {
            let contents = contents(&change.what, &before, &after).filter(|_| with_lines);
            let text = contents.map(|(before, after)| lines.compare(before, after)).transpose()?;
            differences.push(tell(change, text.flatten()));
        }
        Ok(Differences { differences, left_out: lines.left_out })
    }
}

impl Lines {
    /// Returns the lines that differ as `diff -u` does, if both are text.
    fn compare(
        &mut self,
        before: Content<'_>,
        after: Content<'_>,
    ) -> Result<Option<String>, Refusal> {
        if [&before, &after].into_iter().flatten().any(|(_, held)| held.size > TEXT_BYTES_MAX) {
            return Ok(None);
        }
        if self.room == 0 {
            self.left_out += 1;
            return Ok(None);
        }
        let Some(before) = self.read(before)? else { return Ok(None) };
        let Some(after) = self.read(after)? else { return Ok(None) };
        let [old, new] =
            [&before, &after].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
        let mut compared = TextDiff::configure();
        let compared = compared.newline_terminated(true).deadline(self.until);
        let text = compared.diff_slices(&old, &new).unified_diff().to_string();
        self.room = self.room.saturating_sub(text.len());
        Ok(Some(text))
    }

    fn read(&self, content: Content<'_>) -> Result<Option<String>, Refusal> {
        let Some((tree, held)) = content else { return Ok(Some(String::new())) };
        let mut bytes = Vec::new();
        let body = tree.body_of(&held).map_err(not_read)?;
        let read = self.vault.reader(body, held.size).read_to_end(&mut bytes);
        read.map_err(|error| refusal(error.into()))?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    }
}

/// Returns what a file held and holds, where that differs.
fn contents<'a>(
    what: &Difference,
    before: &'a AnyTree,
    after: &'a AnyTree,
) -> Option<(Content<'a>, Content<'a>)> {
    match what {
        Difference::Removed(node) => Some((Some((before, file(node)?)), None)),
        Difference::Added(node) => Some((None, Some((after, file(node)?)))),
        Difference::Content { before: was, after: is } => {
            Some((Some((before, was.clone())), Some((after, is.clone()))))
        }
        Difference::Renamed { .. }
        | Difference::Target { .. }
        | Difference::Mode { .. }
        | Difference::Extended { .. } => None,
    }
}

fn file(node: &Node) -> Option<Held> {
    (node.kind == NodeKind::File).then(|| node.held.clone())
}

/// Whether something is at a path or in it, or was and is elsewhere now.
fn is_in(Change { path, what }: &Change, names: &[Name]) -> bool {
    let was = match what {
        Difference::Renamed { from } => from.starts_with(names),
        _ => false,
    };
    was || path.starts_with(names)
}

fn tell(Change { path, what }: Change, lines: Option<String>) -> body::Difference {
    let path = told(&TreePath::from(path));
    let is = |what: &str, before: Option<Side>, after: Option<Side>| {
        let (what, from, attribute) = (what.to_owned(), None, None);
        body::Difference { path, what, from, attribute, before, after, lines }
    };
    let size = |held: Held| Some(Side { size: Some(held.size), ..Side::default() });
    let mode = |mode| Some(Side { mode: Some(mode), ..Side::default() });
    let target = |to| Some(Side { target: Some(written(to)), ..Side::default() });
    match what {
        Difference::Removed(node) => is("removed", Some(side(node)), None),
        Difference::Added(node) => is("added", None, Some(side(node))),
        Difference::Renamed { from } => {
            let from = Some(WrittenPath(told(&TreePath::from(from))));
            body::Difference { from, ..is("renamed", None, None) }
        }
        Difference::Content { before, after } => is("changed", size(before), size(after)),
        Difference::Target { before, after } => is("target", target(before), target(after)),
        Difference::Mode { before, after } => is("mode", mode(before), mode(after)),
        Difference::Extended { name, before, after } => {
            let [before, after] = [before, after].map(|value| value.map(|_| Side::default()));
            body::Difference { attribute: Some(written(name)), ..is("attribute", before, after) }
        }
    }
}

fn side(Node { kind, mode, held, .. }: Node) -> Side {
    let (kind, size, target) = match kind {
        NodeKind::File => ("file", Some(held.size), None),
        NodeKind::Directory => ("directory", None, None),
        NodeKind::Symlink(to) => ("symlink", None, Some(written(to))),
    };
    Side { kind: Some(kind.to_owned()), size, mode: Some(mode), target }
}

fn written(bytes: Vec<u8>) -> WrittenPath {
    WrittenPath(OsString::from_vec(bytes).into())
}
