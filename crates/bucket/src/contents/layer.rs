//! What was written over something: runs at their places, and how much of what lies beneath is still seen.
//!
//! Runs rise, do not overlap and lie within the size. Zeros are a run only where something else would be seen:
//! below `beneath`; elsewhere what no run covers is zeros. Neighbouring bytes are joined up to
//! [`RUN_BYTES_MAX`], so that many small writes make few runs, and none moves more than that many bytes.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use gate_core::tree::op::{ChunkRef, Extent};

/// Bytes that are joined to one run at most: so many are moved when something is put before them.
pub(super) const RUN_BYTES_MAX: usize = 64 * 1024;
/// What a run takes in memory beside its bytes, about.
pub(super) const RUN_COSTS: usize = 96;

#[derive(Clone)]
pub(super) enum Run {
    Bytes(Arc<Vec<u8>>),
    Sealed(ChunkRef),
    Zeros(u64),
}

#[derive(Clone)]
pub(super) struct Layer {
    /// So much of what lies beneath is seen where no run is: never more than there is.
    beneath: u64,
    size: u64,
    runs: BTreeMap<u64, Run>,
    /// Of all runs of bytes together.
    bytes: usize,
}

/// Bytes of a run as they were when it was taken, whatever is written there since.
pub(super) struct Slice {
    run: Arc<Vec<u8>>,
    part: Range<usize>,
}

/// What a layer has at a place.
pub(super) enum At<'a> {
    /// A run that begins there or before.
    Run(u64, &'a Run),
    /// Nothing, up to where its next run begins, if one does.
    Nothing(Option<u64>),
}

impl Run {
    pub(super) fn len(&self) -> u64 {
        match self {
            Run::Bytes(bytes) => bytes.len() as u64,
            Run::Sealed(chunk) => chunk.len.into(),
            Run::Zeros(len) => *len,
        }
    }

    /// Takes away what comes after the first so many bytes, and returns it.
    fn split_off(&mut self, at: u64) -> Run {
        match self {
            Run::Bytes(bytes) => Run::Bytes(Arc::new(Arc::make_mut(bytes).split_off(at as usize))),
            Run::Sealed(chunk) => {
                let rest = part(*chunk, at..chunk.len.into());
                *chunk = part(*chunk, 0..at);
                Run::Sealed(rest)
            }
            Run::Zeros(len) => {
                let rest = *len - at;
                *len = at;
                Run::Zeros(rest)
            }
        }
    }
}

/// Returns the reference to a part of what a reference means.
pub(super) fn part(chunk: ChunkRef, range: Range<u64>) -> ChunkRef {
    let narrow = |bytes: u64| u32::try_from(bytes).expect("a part is no longer than the whole");
    ChunkRef {
        from: chunk.from + narrow(range.start),
        len: narrow(range.end - range.start),
        ..chunk
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.run[self.part.clone()]
    }
}

impl Layer {
    /// Nothing was written yet over so many bytes.
    pub(super) fn over(size: u64) -> Layer {
        Layer { beneath: size, size, runs: BTreeMap::new(), bytes: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn beneath(&self) -> u64 {
        self.beneath
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.bytes + self.runs.len() * RUN_COSTS
    }

    /// Whether it shows all of what lies beneath, which has so many bytes, and nothing else.
    pub(super) fn is_clear(&self, size: u64) -> bool {
        self.runs.is_empty() && self.beneath == size && self.size == size
    }

    pub(super) fn at(&self, at: u64) -> At<'_> {
        if let Some((start, run)) = self.runs.range(..=at).next_back()
            && at - start < run.len()
        {
            return At::Run(*start, run);
        }
        At::Nothing(self.runs.range(at..).next().map(|(next, _)| *next))
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, &Run)> {
        self.runs.iter().map(|(at, run)| (*at, run))
    }

    /// Returns the chunks that its runs need.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        self.runs.values().filter_map(|run| match run {
            Run::Sealed(chunk) => Some(chunk),
            Run::Bytes(_) | Run::Zeros(_) => None,
        })
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len() as u64;
        if let Some((start, Run::Bytes(there))) = self.runs.range_mut(..=at).next_back()
            && end - start <= there.len() as u64
        {
            let there = &mut Arc::make_mut(there)[(at - start) as usize..];
            there[..bytes.len()].copy_from_slice(bytes);
            return;
        }
        self.clear(at..end);
        self.size = self.size.max(end);
        self.bytes += bytes.len();
        let mut rest = bytes;
        if let Some((start, Run::Bytes(before))) = self.runs.range_mut(..at).next_back()
            && start + before.len() as u64 == at
        {
            let joined = rest.len().min(RUN_BYTES_MAX.saturating_sub(before.len()));
            Arc::make_mut(before).extend_from_slice(&rest[..joined]);
            rest = &rest[joined..];
        }
        let mut at = end - rest.len() as u64;
        for piece in rest.chunks(RUN_BYTES_MAX) {
            self.runs.insert(at, Run::Bytes(Arc::new(piece.to_vec())));
            at += piece.len() as u64;
        }
        self.join_with_next(end);
    }

    /// Joins the bytes before a place and those behind it, if they are few enough.
    fn join_with_next(&mut self, place: u64) {
        let mut around = self.runs.range_mut(..=place).rev();
        let (Some((at, Run::Bytes(next))), Some((_, Run::Bytes(before)))) =
            (around.next(), around.next())
        else {
            return;
        };
        if *at == place && before.len() + next.len() <= RUN_BYTES_MAX {
            Arc::make_mut(before).extend_from_slice(next);
            self.runs.remove(&place);
        }
    }

    /// Makes a part zeros; the size stays.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        let mut range = range.start..range.end.min(self.size);
        if range.is_empty() {
            return;
        }
        self.clear(range.clone());
        range.end = range.end.min(self.beneath);
        if range.is_empty() {
            return;
        }
        if let Some((start, Run::Zeros(len))) = self.runs.range(..range.start).next_back()
            && start + len == range.start
        {
            range.start = *start;
        }
        if let Some(Run::Zeros(len)) = self.runs.get(&range.end) {
            let end = range.end + len;
            self.runs.remove(&range.end);
            range.end = end;
        }
        self.runs.insert(range.start, Run::Zeros(range.end - range.start));
    }

    pub(super) fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.clear(size..self.size);
            self.beneath = self.beneath.min(size);
        }
        self.size = size;
    }

    /// Puts what was sealed to its place.
    pub(super) fn put(&mut self, Extent { offset, chunk }: Extent) {
        let end = offset + u64::from(chunk.len);
        if offset < end {
            self.clear(offset..end);
            self.size = self.size.max(end);
            self.runs.insert(offset, Run::Sealed(chunk));
        }
    }

    /// Becomes what this one and another over it are together.
    pub(super) fn take_over(&mut self, top: Layer) {
        self.set_size(top.beneath);
        self.set_size(top.size);
        for (at, run) in top.runs {
            match run {
                Run::Bytes(bytes) => self.write(at, &bytes),
                Run::Sealed(chunk) => self.put(Extent { offset: at, chunk }),
                Run::Zeros(len) => self.zero(at..at + len),
            }
        }
    }

    /// Returns the stretch of bytes, in runs side by side, in which a place lies or at whose end it is.
    pub(super) fn stretch(&self, place: u64) -> Range<u64> {
        let bytes_len = |run: &Run| match run {
            Run::Bytes(bytes) => Some(bytes.len() as u64),
            Run::Sealed(_) | Run::Zeros(_) => None,
        };
        let (mut start, mut end) = (place, place);
        for (at, run) in self.runs.range(..place).rev() {
            match bytes_len(run) {
                Some(len) if at + len >= start => start = *at,
                _ => break,
            }
        }
        for (at, run) in self.runs.range(start..) {
            match bytes_len(run) {
                Some(len) if *at <= end => end = at + len,
                _ => break,
            }
        }
        start..end
    }

    /// Returns the bytes of a part of a stretch, one after the other.
    pub(super) fn slices_of(&self, part: &Range<u64>) -> Vec<Slice> {
        let first = self.runs.range(..=part.start).next_back().map_or(part.start, |(at, _)| *at);
        let runs = self.runs.range(first..part.end);
        let slice = |(at, run): (&u64, &Run)| {
            let Run::Bytes(bytes) = run else { return None };
            let to = bytes.len().min((part.end - at) as usize);
            let from = to.min(part.start.saturating_sub(*at) as usize);
            Some(Slice { run: Arc::clone(bytes), part: from..to })
        };
        runs.filter_map(slice).collect()
    }

    /// Forgets what is in a part, so that what lies beneath is seen there, as far as it is.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        let mut tail = None;
        if let Some((start, run)) = self.runs.range_mut(..range.start).next_back()
            && range.start - start < run.len()
        {
            let mut gone = run.split_off(range.start - start);
            tail = cut_tail(&mut gone, range.start, range.end);
            self.bytes -= held(&gone);
        }
        while let Some((start, _)) = self.runs.range(range.clone()).next() {
            let start = *start;
            let mut gone = self.runs.remove(&start).expect("it was found there");
            tail = cut_tail(&mut gone, start, range.end);
            self.bytes -= held(&gone);
        }
        if let Some(tail) = tail {
            self.runs.insert(range.end, tail);
        }
    }
}

/// Takes away what a run has behind a place, and returns it.
fn cut_tail(run: &mut Run, start: u64, end: u64) -> Option<Run> {
    (end - start < run.len()).then(|| run.split_off(end - start))
}

fn held(run: &Run) -> usize {
    if let Run::Bytes(bytes) = run { bytes.len() } else { 0 }
}
