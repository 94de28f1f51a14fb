//! Where the bytes of a file are cut into chunks.
//!
//! The cuts follow the content, so that bytes that moved are still found. A cut depends on nothing before the
//! cut before it, and on no byte after the one that follows it: whoever begins at an old cut cuts as if it had
//! begun at the file's start, and once a new cut meets an old one, all after it are the old ones.
//! Not here: holes (each run of bytes between them is cut by itself), and what a chunk becomes.

use std::io::{self, Read};
use std::ops::Range;

use fastcdc::v2020::FastCDC;
use gate_core::tree::op::{CHUNK_BYTES_MAX, INLINE_BYTES_MAX};

/// A file of at most so many bytes is one chunk.
pub const SINGLE_BYTES_MAX: u64 = 64 * 1024;
/// The smallest chunk of a larger file, but for its last.
pub const CUT_BYTES_MIN: usize = 16 * 1024;
/// What chunks are long on average.
pub const CUT_BYTES_MEAN: usize = 64 * 1024;
/// The longest chunk.
pub const CUT_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize;
/// A file that was overwritten in place more often than this is kept in blocks.
pub const OVERWRITES_MAX: u32 = 32;
/// The length of a block of a file that is often overwritten.
pub const BLOCK_BYTES: u64 = 64 * 1024;

/// Bytes that are held while cutting: several chunks for each time that bytes are moved.
const WINDOW_BYTES: usize = 4 * CUT_BYTES_MAX;

/// How the bytes of a file are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In the operation itself.
    Inline,
    /// As one chunk.
    Single,
    /// As chunks whose ends follow the content.
    Cut,
}

/// A change of a file's bytes: at a place, some were taken out, and others put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where, in the new file.
    pub at: u64,
    pub removed: u64,
    pub inserted: u64,
}

/// A stretch of a file that was cut anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Old chunks, by their places among the old ones, of which the first begins here now.
    Kept { at: u64, chunks: Range<usize> },
    /// A new chunk.
    New { at: u64, len: u64 },
}

/// Returns how a file of some length is kept.
pub fn layout(len: u64) -> Layout {
    if len <= INLINE_BYTES_MAX as u64 {
        Layout::Inline
    } else if len <= SINGLE_BYTES_MAX {
        Layout::Single
    } else {
        Layout::Cut
    }
}

/// Returns the blocks that a change in place touches, as ranges of the file, the last one cut off at its end.
pub fn blocks(touched: Range<u64>, file_len: u64) -> impl Iterator<Item = Range<u64>> {
    let end = touched.end.min(file_len);
    let first = touched.start / BLOCK_BYTES;
    let blocks = if touched.start < end { first..end.div_ceil(BLOCK_BYTES) } else { 0..0 };
    blocks.map(move |n| n * BLOCK_BYTES..(n + 1).saturating_mul(BLOCK_BYTES).min(file_len))
}

/// Cuts a file; `read` fills a buffer from a place, `chunk` is given each chunk's place and bytes.
pub fn cut<E>(
    len: u64,
    read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    mut chunk: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut window = Window::new(len, read);
    let mut at = 0;
    while at < len {
        let bytes = window.next_chunk(at)?;
        chunk(at, bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Cuts bytes after which others may follow: only where [`cut`] would, whatever follows.
///
/// No more is left than [`CUT_BYTES_MAX`] at their end; of fewer bytes than that nothing is cut.
pub fn cut_certain(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut chunks, mut rest) = (Vec::new(), bytes);
    while rest.len() > CUT_BYTES_MAX {
        let (chunk, after) = rest.split_at(cut_first(rest));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// Cuts a file as it comes, as [`cut`] would that knows its length, and returns that.
pub fn cut_stream<E: From<io::Error>>(
    from: &mut dyn Read,
    mut chunk: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut bytes = Vec::new();
    // Where the next chunk begins: in the file, and in the bytes that are held of it.
    let (mut at, mut start) = (0, 0);
    let mut is_all = false;
    loop {
        if !is_all && bytes.len() - start < CUT_BYTES_MAX {
            bytes.drain(..start);
            start = 0;
            let room = WINDOW_BYTES - bytes.len();
            is_all = Read::take(&mut *from, room as u64).read_to_end(&mut bytes)? < room;
        }
        let rest = &bytes[start..];
        if rest.is_empty() {
            return Ok(at);
        }
        let is_small = at == 0 && is_all && rest.len() as u64 <= SINGLE_BYTES_MAX;
        let len = if is_small { rest.len() } else { cut_first(rest) };
        chunk(at, &rest[..len])?;
        (at, start) = (at + len as u64, start + len);
    }
}

/// Cuts a changed file where it changed; `chunk` is given the new chunks.
///
/// `old` are the ends of the chunks that the file had, `edits` rise and do not overlap. Reads little more than
/// what changed, and makes what [`cut`] would make of the whole if that had made the old chunks.
pub fn recut<E>(
    old: &[u64],
    edits: &[Edit],
    read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    mut chunk: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Vec<Piece>, E> {
    let mut course = Course::new(old, edits);
    let mut window = Window::new(course.len, read);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < course.len {
        if let Some(chunks) = course.kept_from(at) {
            let len = old[chunks.end - 1] - course.start(chunks.start);
            pieces.push(Piece::Kept { at, chunks });
            at += len;
        } else {
            let bytes = window.next_chunk(at)?;
            chunk(at, bytes)?;
            let len = bytes.len() as u64;
            pieces.push(Piece::New { at, len });
            at += len;
        }
    }
    Ok(pieces)
}

/// Which old chunks are still good, asked from the file's start to its end.
struct Course<'a> {
    old: &'a [u64],
    edits: &'a [Edit],
    /// Of the new file.
    len: u64,
    /// Old bytes that were taken out, and new ones that were put in, by the edits that lie behind.
    removed: u64,
    inserted: u64,
    /// Where the newest of them ended.
    clean_from: u64,
    /// The first old chunk that may still be met.
    next: usize,
}

impl<'a> Course<'a> {
    fn new(old: &'a [u64], edits: &'a [Edit]) -> Course<'a> {
        let mut len = old.last().copied().unwrap_or(0);
        let mut end = 0;
        for edit in edits {
            assert!(edit.at >= end && edit.at <= len, "edits rise, and lie in the file");
            assert!(edit.removed <= len - edit.at, "an edit removes what was there");
            end = edit.at + edit.inserted;
            len = len - edit.removed + edit.inserted;
        }
        Course { old, edits, len, removed: 0, inserted: 0, clean_from: 0, next: 0 }
    }

    fn start(&self, chunk: usize) -> u64 {
        chunk.checked_sub(1).map_or(0, |before| self.old[before])
    }

    /// Returns the old chunks that go on from here unchanged, if an old one begins here.
    fn kept_from(&mut self, at: u64) -> Option<Range<usize>> {
        while let Some(edit) = self.edits.first().filter(|edit| edit.at + edit.inserted <= at) {
            (self.removed, self.inserted) =
                (self.removed + edit.removed, self.inserted + edit.inserted);
            self.clean_from = edit.at + edit.inserted;
            self.edits = &self.edits[1..];
        }
        if at < self.clean_from || self.edits.first().is_some_and(|edit| edit.at <= at) {
            return None;
        }
        let was_at = at + self.removed - self.inserted;
        while self.next < self.old.len() && self.start(self.next) < was_at {
            self.next += 1;
        }
        if self.next == self.old.len() || self.start(self.next) != was_at {
            return None;
        }
        // The byte after a cut took part in the choice of the cut: it must not have changed either.
        let clean_to =
            self.edits.first().map_or(u64::MAX, |edit| edit.at + self.removed - self.inserted);
        let kept = self.old[self.next..].iter().take_while(|end| **end < clean_to).count();
        // What was one chunk because the file was small is kept as one, or not at all.
        let is_whole = kept == self.old.len() && self.edits.is_empty();
        if kept == 0 || (self.len <= SINGLE_BYTES_MAX && !is_whole) {
            return None;
        }
        let first = self.next;
        self.next += kept;
        Some(first..self.next)
    }
}

/// A part of a file that moves on through it.
struct Window<R> {
    read: R,
    file_len: u64,
    /// Where the bytes begin in the file.
    at: u64,
    bytes: Vec<u8>,
}

impl<R> Window<R> {
    fn new(file_len: u64, read: R) -> Window<R> {
        Window { read, file_len, at: 0, bytes: Vec::new() }
    }

    /// Returns the chunk that begins at a place before the file's end.
    fn next_chunk<E>(&mut self, at: u64) -> Result<&[u8], E>
    where
        R: FnMut(u64, &mut [u8]) -> Result<(), E>,
    {
        let want = (self.file_len - at).min(CUT_BYTES_MAX as u64);
        let have_to = self.at + self.bytes.len() as u64;
        if at < self.at || at + want > have_to {
            self.move_to(at)?;
        }
        let rest = &self.bytes[(at - self.at) as usize..];
        let len = match layout(self.file_len) {
            Layout::Inline | Layout::Single => rest.len(),
            Layout::Cut => cut_first(rest),
        };
        Ok(&rest[..len])
    }

    fn move_to<E>(&mut self, at: u64) -> Result<(), E>
    where
        R: FnMut(u64, &mut [u8]) -> Result<(), E>,
    {
        let have_to = self.at + self.bytes.len() as u64;
        if (self.at..have_to).contains(&at) {
            self.bytes.drain(..(at - self.at) as usize);
        } else {
            self.bytes.clear();
        }
        self.at = at;
        let have = self.bytes.len();
        // Where little changed, little is read: one longest chunk at first, and more when that was not enough.
        let goal = if have == 0 { CUT_BYTES_MAX } else { WINDOW_BYTES };
        let len = (self.file_len - at).min(goal as u64) as usize;
        self.bytes.resize(len, 0);
        (self.read)(at + have as u64, &mut self.bytes[have..])
    }
}

/// Returns the length of the first chunk of some bytes: those up to the file's end, or more than a chunk has.
fn cut_first(bytes: &[u8]) -> usize {
    FastCDC::new(bytes, CUT_BYTES_MIN, CUT_BYTES_MEAN, CUT_BYTES_MAX).cut(0, bytes.len()).1
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::law;

    /// Bytes that look random and are always the same.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), Infallible> {
        |at, out| {
            out.copy_from_slice(&bytes[at as usize..][..out.len()]);
            Ok(())
        }
    }

    fn ends(bytes: &[u8]) -> Vec<u64> {
        let mut ends = Vec::new();
        let note = |at: u64, chunk: &[u8]| {
            assert_eq!(chunk, &bytes[at as usize..][..chunk.len()]);
            assert_eq!(at, ends.last().copied().unwrap_or(0), "they are a partition");
            ends.push(at + chunk.len() as u64);
            Ok(())
        };
        let Ok(()) = cut(bytes.len() as u64, reader(bytes), note);
        ends
    }

    /// Cuts anew, checks that the pieces are a partition of the same bytes, returns ends and new bytes.
    fn again(before: &[u8], after: &[u8], old: &[u64], edits: &[Edit]) -> (Vec<u64>, u64) {
        let check = |at: u64, chunk: &[u8]| {
            assert_eq!(chunk, &after[at as usize..][..chunk.len()]);
            Ok(())
        };
        let Ok(pieces) = recut(old, edits, reader(after), check);
        let (mut ends, mut new) = (Vec::new(), 0);
        for piece in pieces {
            let end = ends.last().copied().unwrap_or(0);
            match piece {
                Piece::New { at, len } => {
                    assert_eq!(at, end);
                    ends.push(at + len);
                    new += len;
                }
                Piece::Kept { at, chunks } => {
                    assert_eq!(at, end);
                    let from = chunks.start.checked_sub(1).map_or(0, |n| old[n]);
                    for end in &old[chunks.clone()] {
                        ends.push(at + end - from);
                    }
                    let len = (old[chunks.end - 1] - from) as usize;
                    let (was, is) = (&before[from as usize..], &after[at as usize..]);
                    assert!(was[..len] == is[..len], "what is kept is the same");
                }
            }
        }
        assert_eq!(ends.last().copied().unwrap_or(0), after.len() as u64);
        (ends, new)
    }

    /// Makes an edit, and the bytes after it.
    fn edited(before: &[u8], at: usize, removed: usize, inserted: &[u8]) -> (Vec<u8>, Edit) {
        let mut after = before.to_vec();
        after.splice(at..at + removed, inserted.iter().copied());
        let edit = Edit { at: at as u64, removed: removed as u64, inserted: inserted.len() as u64 };
        (after, edit)
    }

    #[test]
    fn the_length_says_how_a_file_is_kept() {
        let expected = [
            (0, Layout::Inline),
            (1024, Layout::Inline),
            (1025, Layout::Single),
            (65_536, Layout::Single),
            (65_537, Layout::Cut),
            (u64::MAX, Layout::Cut),
        ];
        for (len, expected) in expected {
            assert_eq!(layout(len), expected, "{len}");
        }
        assert_eq!(ends(&noise(1, 65_536)), [65_536]);
        assert_eq!(ends(b""), [0; 0]);
    }

    /// Cuts are no format, but other cuts would find nothing of what is stored already.
    #[test]
    fn the_cuts_stay_what_they_are() {
        let ends = ends(&noise(0, 1 << 20));
        let digest = blake3::hash(format!("{ends:?}").as_bytes());
        assert_eq!((ends.len(), &digest.to_hex()[..16]), CUTS_OF_A_MEBIBYTE);
    }

    /// How many there are, and a digest of them.
    const CUTS_OF_A_MEBIBYTE: (usize, &str) = (13, "daaf9a362499a6d6");

    #[test]
    fn what_follows_changes_no_cut_that_was_certain() {
        let file = noise(8, 1 << 20);
        let all = ends(&file);
        for len in [1, CUT_BYTES_MAX, CUT_BYTES_MAX + 1, 700_000, file.len()] {
            let mut to = 0;
            let end = |chunk: &&[u8]| {
                to += chunk.len() as u64;
                to
            };
            let certain: Vec<_> = cut_certain(&file[..len]).iter().map(end).collect();
            assert_eq!(certain, all[..certain.len()]);
            assert!(len as u64 - to <= CUT_BYTES_MAX as u64, "{to} of {len}");
        }
    }

    #[test]
    fn one_byte_more_in_eight_mebibytes_makes_at_most_a_few_new_chunks() {
        let before = noise(2, 8 << 20);
        let old = ends(&before);
        let (mut most, mut sum) = (0, 0);
        let places = 64;
        for n in 0..places {
            let (after, edit) = edited(&before, n * before.len() / places, 0, b"x");
            let (_, new) = again(&before, &after, &old, &[edit]);
            most = most.max(new);
            sum += new;
        }
        assert!(most <= 6 * CUT_BYTES_MAX as u64, "{most}");
        assert!(sum / places as u64 <= 3 * CUT_BYTES_MEAN as u64, "{}", sum / places as u64);
    }

    #[test]
    fn little_is_read_when_little_changed() {
        let before = noise(3, 8 << 20);
        let old = ends(&before);
        let (after, edit) = edited(&before, 4 << 20, 4096, &noise(4, 4096));
        let mut bytes_read = 0;
        let mut plain = reader(&after);
        let read = |at: u64, out: &mut [u8]| {
            bytes_read += out.len();
            plain(at, out)
        };
        let Ok(_) = recut(&old, &[edit], read, |_, _| Ok(()));
        assert!(bytes_read <= WINDOW_BYTES + CUT_BYTES_MAX, "{bytes_read}");
    }

    #[test]
    fn blocks_cover_what_was_touched_and_end_with_the_file() {
        let list = |touched: Range<u64>, len| {
            blocks(touched, len).map(|block| (block.start, block.end)).collect::<Vec<_>>()
        };
        assert_eq!(list(0..1, 10), [(0, 10)]);
        assert_eq!(list(65_535..65_537, 200_000), [(0, 65_536), (65_536, 131_072)]);
        assert_eq!(list(196_608..200_000, 200_000), [(196_608, 200_000)]);
        assert_eq!(list(5..5, 10), []);
        assert_eq!(list(20..30, 10), []);
    }

    #[test]
    fn cutting_where_it_changed_is_cutting_the_whole() {
        let len = prop_oneof![Just(0), 1..3000_usize, 60_000..70_000_usize, 0..1_000_000_usize];
        let inserted = prop_oneof![Just(0), 0..5_usize, 0..200_000_usize];
        let edits = prop::collection::vec((0.0..=1.0_f64, 0..300_000_usize, inserted), 0..4);
        law::hold(4, &(0..4_u64, len, edits, any::<bool>()), |(seed, len, edits, is_even)| {
            let before = if is_even { vec![7; len] } else { noise(seed, len) };
            let old = ends(&before);
            // From the last to the first, so that the places of all lie in the file before.
            let mut places: Vec<_> =
                edits.iter().map(|(at, r, i)| ((at * len as f64) as usize, *r, *i)).collect();
            places.sort_unstable();
            let (mut after, mut made, mut read_to) = (Vec::new(), Vec::new(), 0);
            for (at, removed, inserted) in places {
                let at = at.max(read_to);
                let removed = removed.min(len - at);
                after.extend_from_slice(&before[read_to..at]);
                made.push(Edit {
                    at: after.len() as u64,
                    removed: removed as u64,
                    inserted: inserted as u64,
                });
                after.extend(noise(seed + 9, inserted));
                read_to = at + removed;
            }
            after.extend_from_slice(&before[read_to..]);
            let (found, _) = again(&before, &after, &old, &made);
            prop_assert_eq!(found, ends(&after));
            Ok(())
        });
    }

    proptest! {
        /// Whoever made the old cuts may have cut otherwise, or mean harm.
        #[test]
        fn whatever_the_old_cuts_are_the_new_ones_are_a_partition(
            cuts in prop::collection::btree_set(1..300_000_u64, 1..40),
            at in 0.0..=1.0_f64,
            removed in 0..100_000_usize,
            inserted in 0..100_000_usize,
        ) {
            let old: Vec<u64> = cuts.into_iter().collect();
            let before = noise(5, *old.last().expect("there is one") as usize);
            let at = (at * before.len() as f64) as usize;
            let removed = removed.min(before.len() - at);
            let (after, edit) = edited(&before, at, removed, &noise(6, inserted));
            again(&before, &after, &old, &[edit]);
        }
    }
}
