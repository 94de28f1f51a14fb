//! Texts that were changed at the same time, as one: by the rule that a genesis names by its merge version, 1.
//!
//! All peers must come to the same bytes, so the rule never changes, nor does the comparison of lines beneath it:
//! `docs/bucket-format.md` says what is a text, and when two merge. Who sees merged texts looks through a [`TextLens`].

mod lens;
#[cfg(test)]
mod tests;

use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

pub(crate) use lens::Merges;
pub use lens::TextLens;

/// What is longer is no text that merges, …
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// … nor is what has more lines: half a million that are a byte each would be compared for half a minute.
const LINES_MAX: usize = 32 * 1024;

/// What one side put in place of some lines.
struct Edit {
    base: Range<usize>,
    side: Range<usize>,
}

/// Merges what became of a text, the first that counts most; `None` if that is not text, or if two changed the same.
pub fn merge<'a>(base: &'a [u8], sides: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let base = lines(base)?;
    let mut merged: Option<Vec<u8>> = None;
    for side in sides {
        let side_lines = lines(side)?;
        merged = Some(match merged {
            None => side.to_vec(),
            Some(before) => merge_two(&base, &lines(&before)?, &side_lines)?.concat().into_bytes(),
        });
        // What is merged is a text itself.
        lines(merged.as_deref()?)?;
    }
    merged
}

/// Returns the lines of a text, each with its end.
fn lines(bytes: &[u8]) -> Option<Vec<&str>> {
    let is_text = bytes.len() <= TEXT_BYTES_MAX && !bytes.contains(&0);
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_text)?;
    let lines: Vec<_> = text.split_inclusive('\n').take(LINES_MAX + 1).collect();
    Some(lines).filter(|lines| lines.len() <= LINES_MAX)
}

fn merge_two<'a>(base: &[&'a str], one: &[&'a str], other: &[&'a str]) -> Option<Vec<&'a str>> {
    let [ones, others] = [one, other].map(|side| edits(base, side));
    let (mut ones, mut others) = (&ones[..], &others[..]);
    let mut merged = Vec::new();
    let mut at = 0;
    while let Some(first) = [ones.first(), others.first()].into_iter().flatten().map(start).min() {
        merged.extend_from_slice(&base[at..first]);
        // All that touch each other, with no line between them that both left alone.
        let mut end = first;
        let (mut of_one, mut of_other) = (0, 0);
        loop {
            let more =
                [(&mut of_one, ones), (&mut of_other, others)].into_iter().any(|(count, edits)| {
                    let next = edits.get(*count).filter(|next| next.base.start <= end);
                    *count += usize::from(next.is_some());
                    end = next.map_or(end, |next| end.max(next.base.end));
                    next.is_some()
                });
            if !more {
                break;
            }
        }
        let (now_one, rest) = ones.split_at(of_one);
        ones = rest;
        let (now_other, rest) = others.split_at(of_other);
        others = rest;
        let span = first..end;
        merged.extend_from_slice(match (now_one, now_other) {
            (edits, []) => &one[became(edits, &span)],
            ([], edits) => &other[became(edits, &span)],
            (these, those) => {
                let (these, those) = (&one[became(these, &span)], &other[became(those, &span)]);
                Some(these).filter(|_| these == those)?
            }
        });
        at = end;
    }
    merged.extend_from_slice(&base[at..]);
    Some(merged)
}

/// Returns what a side changed, in its order; between two of them is a line at least that it left alone.
fn edits(base: &[&str], side: &[&str]) -> Vec<Edit> {
    let mut edits: Vec<Edit> = Vec::new();
    let ops = capture_diff_slices(Algorithm::Myers, base, side);
    for op in ops.iter().filter(|op| !matches!(op, DiffOp::Equal { .. })) {
        let (base, side) = (op.old_range(), op.new_range());
        match edits.last_mut() {
            Some(last) if last.base.end == base.start && last.side.end == side.start => {
                (last.base.end, last.side.end) = (base.end, side.end);
            }
            _ => edits.push(Edit { base, side }),
        }
    }
    edits
}

fn start(edit: &Edit) -> usize {
    edit.base.start
}

/// Returns what became of some lines on the side of these edits, one at least, which lie in them.
fn became(edits: &[Edit], span: &Range<usize>) -> Range<usize> {
    let (Some(first), Some(last)) = (edits.first(), edits.last()) else {
        unreachable!("something was changed there")
    };
    first.side.start - (first.base.start - span.start)..last.side.end + (span.end - last.base.end)
}
