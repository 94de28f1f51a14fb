//! Histories: what processes did in a view and what the broker says of it, judged afterwards.
//!
//! Two witnesses are heard. Each process keeps a [`record`] of its own calls, when they were made
//! and what came of them; every write is a stamp of its own, so the bytes say who was there. The
//! broker's log tells of each claim. Judging is pure: [`broker`] judges the log by itself (turns
//! exclude each other, nobody is passed, tokens rise), [`bytes`] judges what the processes saw in files, [`names`]
//! what became of names, with the [`turns`] in which that was.
//! Not here: who does the work (the binary `worker`), and who makes it hard (the tests).

pub mod broker;
pub mod bytes;
pub mod names;
pub mod record;
pub mod turns;

/// Reading, or writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Beside other readers.
    Read,
    /// Alone.
    Write,
}

impl Access {
    /// Tells whether the two may not have the same at once.
    #[must_use]
    pub fn conflicts(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}
