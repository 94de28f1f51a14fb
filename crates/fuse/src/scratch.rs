//! Memory that is filled again and again, mostly with little.
//!
//! What much has filled stays with the process until it is given back: of its length nothing is lost
//! by that, and of what it holds all but the beginning.

use std::cell::RefCell;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

use crate::session::MESSAGE_MAX;

/// So much is not worth giving back.
pub(crate) const LITTLE_BYTES: usize = 64 << 10;

thread_local! {
    /// In which a thread gathers what it answers.
    pub(crate) static ANSWERS: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// Bytes that whoever fills them finds as they were left.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    had_much: bool,
}

impl Scratch {
    pub const fn new() -> Scratch {
        Scratch { bytes: Vec::new(), had_much: false }
    }

    pub fn of(len: usize) -> Scratch {
        Scratch { bytes: vec![0; len], had_much: false }
    }

    /// Returns its first bytes, so many; it grows if it has fewer.
    pub fn first(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            // All that it may ever need costs nothing until it is filled, and much that is left behind
            // each time it grows does.
            let len = if len > LITTLE_BYTES { len.max(MESSAGE_MAX) } else { len };
            self.bytes = vec![0; len];
        }
        &mut self.bytes[..len]
    }

    pub fn all(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// So many were filled.
    pub fn filled(&mut self, len: usize) {
        self.had_much |= len > LITTLE_BYTES;
    }

    /// Returns whether much was filled since this was last asked.
    pub fn had_much(&mut self) -> bool {
        std::mem::take(&mut self.had_much)
    }

    /// Gives back what is more than little.
    pub fn give_back(&mut self) {
        let much = self.bytes.get_mut(LITTLE_BYTES..).unwrap_or_default();
        let page = page_size();
        let before = much.as_ptr().align_offset(page);
        let whole = much.len().saturating_sub(before) / page * page;
        if whole == 0 {
            return;
        }
        let pages = &mut much[before..before + whole];
        // SAFETY: they are borrowed by nobody else, and bytes that may become 0.
        let given = unsafe { madvise(pages.as_mut_ptr().cast(), whole, Advice::LinuxDontNeed) };
        if let Err(errno) = given {
            tracing::debug!(%errno, "memory is kept");
        }
    }
}

/// What is freed the allocator may keep as it is.
impl Drop for Scratch {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const LONG: usize = MESSAGE_MAX;

    /// Returns how many bytes are there of a part of the memory of this process, that begins with a
    /// page or in one.
    pub(crate) fn resident(start: usize, len: usize) -> usize {
        let page = page_size();
        let first = start / page * page;
        let mut pages = vec![0_u8; (start + len - first).div_ceil(page)];
        let address = std::ptr::with_exposed_provenance_mut(first);
        // SAFETY: it writes into `pages`, a byte for each.
        assert_eq!(unsafe { libc::mincore(address, start + len - first, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 == 1).count() * page
    }

    #[test]
    fn all_but_the_beginning_is_given_back_and_can_be_filled_anew() {
        let mut scratch = Scratch::new();
        let start = scratch.first(LONG).as_ptr().expose_provenance();
        for _ in 0..2 {
            scratch.first(LONG).fill(1);
            assert_eq!(resident(start, LONG) / LONG, 1);
            scratch.give_back();
            let left = resident(start, LONG);
            assert!((LITTLE_BYTES..LITTLE_BYTES + 3 * page_size()).contains(&left), "{left}");
            assert!(scratch.first(LITTLE_BYTES).iter().all(|byte| *byte == 1));
            assert_eq!(scratch.all().len(), LONG);
        }
    }

    #[test]
    fn what_has_little_has_nothing_to_give_back() {
        for len in [0, 1, LITTLE_BYTES, LITTLE_BYTES + 1] {
            let mut scratch = Scratch::of(len);
            scratch.filled(len);
            assert_eq!([scratch.had_much(), scratch.had_much()], [len > LITTLE_BYTES, false]);
            scratch.all().fill(1);
            scratch.give_back();
            assert!(scratch.first(len).iter().all(|byte| *byte == 1));
        }
    }
}
