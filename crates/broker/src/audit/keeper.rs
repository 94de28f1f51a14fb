//! The thread that keeps the log: takes from the tray, writes, answers.
//!
//! Readers are served a page at a time, and ask for the next: none costs memory while it is slow.
//! A question about what is yet to come is parked here until it comes, or its patience ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gate_api::wire::{Cursor, LogPage, Stretch};

use super::block::{Block, Read};
use super::pen::Tray;
use super::recent::Recent;
use super::store::{Kind, Store};
use super::{Question, Word};
use crate::clock;

/// For how long records gather in the tray before they are taken.
const GATHERING: Duration = Duration::from_millis(100);
/// As above, while somebody waits for news.
const GATHERING_AWAITED: Duration = Duration::from_millis(5);
/// The pause between two transactions.
const WRITING_PAUSE: Duration = Duration::from_millis(100);
/// The pause after one that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Questions that wait for news, at most; beyond that the oldest is answered with none.
const PARKED_MAX: usize = 8_192;
/// Bytes of records that are looked at for one page.
const LOOK_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of records in one page, about; far enough from the bound of a frame.
const PAGE_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Keeper {
    tray: Arc<Tray>,
    recent: Recent,
    store: Store,
    parked: Vec<Parked>,
    take_at: Option<Instant>,
    write_at: Option<Instant>,
    last_write: Instant,
}

/// A question that waits for news after a place.
struct Parked {
    after: Cursor,
    question: Question,
}

impl Keeper {
    pub fn new(tray: Arc<Tray>, store: Store, recent: Recent) -> Keeper {
        Keeper {
            tray,
            recent,
            store,
            parked: Vec::new(),
            take_at: None,
            write_at: None,
            last_write: Instant::now(),
        }
    }

    /// Runs until it is told to end, or nobody is left who could.
    pub fn run(mut self, words: &Receiver<Word>) {
        loop {
            let heard = match self.deadline() {
                None => words.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => words.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match heard {
                Ok(Word::Filled) => {
                    let awaited = !self.parked.is_empty();
                    let gathering = if awaited { GATHERING_AWAITED } else { GATHERING };
                    self.take_at.get_or_insert(Instant::now() + gathering);
                }
                Ok(Word::Asked(question)) => {
                    // Whoever was told of something can read of it.
                    self.take();
                    self.attend(question);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Word::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.do_what_is_due(Instant::now());
        }
        self.take();
        self.write();
        for Parked { after, question } in std::mem::take(&mut self.parked) {
            (question.answer)(nothing_after(after));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let patience = self.parked.iter().map(|parked| parked.question.until).min();
        [self.take_at, self.write_at, patience].into_iter().flatten().min()
    }

    fn do_what_is_due(&mut self, now: Instant) {
        if self.take_at.is_some_and(|at| at <= now) {
            self.take();
        }
        if self.write_at.is_some_and(|at| at <= now) {
            self.write();
        }
        if self.parked.iter().any(|parked| parked.question.until <= now) {
            let (over, parked) = std::mem::take(&mut self.parked)
                .into_iter()
                .partition(|parked: &Parked| parked.question.until <= now);
            self.parked = parked;
            for Parked { after, question } in over {
                (question.answer)(nothing_after(after));
            }
        }
    }

    /// Takes what is in the tray, and tells those who wait for it.
    fn take(&mut self) {
        self.take_at = None;
        let blocks = self.tray.take();
        if blocks.is_empty() {
            return;
        }
        self.recent.push(blocks);
        self.write_at.get_or_insert(self.last_write + WRITING_PAUSE);
        for Parked { after, question } in std::mem::take(&mut self.parked) {
            self.attend(Question { stretch: Stretch::After(after), ..question });
        }
    }

    fn write(&mut self) {
        self.last_write = Instant::now();
        let blocks = self.recent.unwritten();
        self.write_at = if self.store.write(&blocks) {
            self.recent.all_written();
            self.store.trim(clock::wall_ms());
            None
        } else {
            Some(self.last_write + RETRY_PAUSE)
        };
    }

    /// Answers a question, or parks it.
    fn attend(&mut self, question: Question) {
        let page = match question.stretch {
            Stretch::After(place) => self.page_after(place, 0, &question),
            Stretch::Since(at_ms) => {
                let place = self.store.since(at_ms).unwrap_or(self.recent.oldest());
                self.page_after(place, at_ms, &question)
            }
            Stretch::UpTo(place) => self.page_up_to(place, &question),
        };
        let is_forward = !matches!(question.stretch, Stretch::UpTo(_));
        let is_news = !page.entries.is_empty() || page.gap || page.more;
        if !is_forward || is_news || question.until <= Instant::now() {
            return (question.answer)(page);
        }
        if self.parked.len() >= PARKED_MAX {
            let Parked { after, question } = self.parked.remove(0);
            (question.answer)(nothing_after(after));
        }
        self.parked.push(Parked { after: page.end, question });
    }

    fn page_after(&mut self, place: Cursor, since_ms: u64, question: &Question) -> LogPage {
        let newest = self.recent.newest();
        // A place that is yet to come is one of another log.
        let (place, is_foreign) =
            if place > newest { (Cursor::START, true) } else { (place, false) };
        let blocks = self.blocks_after(place);
        let (begin, gap) = match blocks.first() {
            Some(first) if is_foreign => (first.begin(), true),
            first => self.begin_of(place, first),
        };
        let mut page = LogPage { entries: Vec::new(), begin, end: begin, gap, more: false };
        let mut bytes = 0;
        for read in blocks.iter().flat_map(|block| block.read()) {
            if read.entry.cursor <= place {
                continue;
            }
            let end = read.entry.cursor;
            if read.entry.record.at_ms >= since_ms && question.filter.accepts(&read.entry.record) {
                bytes += read.bytes;
                if page.entries.len() >= question.limit || bytes > PAGE_BYTES_MAX {
                    page.more = true;
                    return page;
                }
                page.entries.push(read.entry);
            }
            page.end = end;
        }
        page.more = page.end < newest;
        page
    }

    fn page_up_to(&mut self, place: Option<Cursor>, question: &Question) -> LogPage {
        let newest = self.recent.newest();
        let end = place.unwrap_or(newest).min(newest);
        let (blocks, more) = self.blocks_up_to(end, question.filter.kind());
        let mut page = LogPage { entries: Vec::new(), begin: end, end, gap: false, more };
        let mut bytes = 0;
        for read in blocks.iter().flat_map(|block| block.read().into_iter().rev()) {
            let Read { entry, before, bytes: length } = read;
            if entry.cursor > end {
                continue;
            }
            if question.filter.accepts(&entry.record) {
                bytes += length;
                if page.entries.len() >= question.limit || bytes > PAGE_BYTES_MAX {
                    page.more = true;
                    break;
                }
                page.entries.push(entry);
            }
            page.begin = before;
        }
        page.entries.reverse();
        page
    }

    fn blocks_after(&mut self, place: Cursor) -> Vec<Arc<Block>> {
        if !self.recent.covers(place) {
            let older = self.store.after(place, LOOK_BYTES_MAX);
            if !older.is_empty() {
                return older;
            }
        }
        some(self.recent.after(place))
    }

    /// Returns blocks up to a place, newest first, and whether there may be more.
    fn blocks_up_to(&mut self, place: Cursor, kind: Kind) -> (Vec<Arc<Block>>, bool) {
        let of_kind = |block: &&Arc<Block>| kind == Kind::All || block.odd;
        let mut blocks = some(self.recent.up_to(place).filter(of_kind));
        let room = LOOK_BYTES_MAX.saturating_sub(bytes_of(&blocks));
        if room > 0 {
            let older = place.min(self.recent.oldest());
            blocks.extend(self.store.up_to(older, room, kind));
        }
        let more = bytes_of(&blocks) >= LOOK_BYTES_MAX;
        (blocks, more)
    }

    /// Returns where a page begins that was asked for from a place, and whether there is a gap.
    fn begin_of(&mut self, place: Cursor, first: Option<&Arc<Block>>) -> (Cursor, bool) {
        let Some(first) = first else { return (place, false) };
        let follows = match first.epoch == place.epoch {
            true => first.begin() <= place,
            false => place == Cursor::START || self.store.knows(place.epoch),
        };
        if follows { (place, false) } else { (first.begin(), true) }
    }
}

/// Takes as many blocks as are looked at for one page.
fn some<'a>(blocks: impl Iterator<Item = &'a Arc<Block>>) -> Vec<Arc<Block>> {
    let mut bytes = 0;
    let enough = |block: &&Arc<Block>| {
        let before = bytes;
        bytes += block.records.told.len();
        before < LOOK_BYTES_MAX
    };
    blocks.take_while(enough).cloned().collect()
}

fn bytes_of(blocks: &[Arc<Block>]) -> usize {
    blocks.iter().map(|block| block.records.told.len()).sum()
}

fn nothing_after(place: Cursor) -> LogPage {
    LogPage { entries: Vec::new(), begin: place, end: place, gap: false, more: false }
}
