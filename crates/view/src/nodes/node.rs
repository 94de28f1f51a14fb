//! A node: what it stands for, and what the kernel was told of it.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_fuse::{Attr, NodeId};
use rustc_hash::FxHasher;
use rustix::fs::FileType;

use super::Anchor;
use super::tree::Names;

/// A file, directory, … of the source. It is used as what it stands for.
#[derive(Debug)]
pub struct Node<A> {
    /// Its number.
    pub id: NodeId,
    anchor: A,
    pub(super) lookups: AtomicU64,
    /// A digest of the attributes that the kernel was last told.
    told: AtomicU64,
    /// A digest of those that it was last told to ask for.
    asked: AtomicU64,
    /// Whether it has asked since.
    heard: AtomicBool,
    /// Whether it may have heard of the node for the first time by an answer that is older than what it
    /// was told to ask for: that it did not know.
    unknown: AtomicBool,
    /// A digest of those when it was last made to take the file to be as long as it is.
    stretched: AtomicU64,
    /// Whether it may go by what it was told for long.
    trusts: AtomicBool,
    /// A digest of the content that the kernel may have read; 0 if that may change unseen.
    seen: AtomicU64,
}

impl<A> Deref for Node<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.anchor
    }
}

impl<A: Anchor> Node<A> {
    pub(super) fn new(id: NodeId, anchor: A, lookups: u64) -> Node<A> {
        Node {
            id,
            anchor,
            lookups: AtomicU64::new(lookups),
            told: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            heard: AtomicBool::new(false),
            unknown: AtomicBool::new(false),
            stretched: AtomicU64::new(0),
            trusts: AtomicBool::new(false),
            seen: AtomicU64::new(0),
        }
    }

    pub(super) fn tell(&self, attr: &Attr) {
        self.heard.store(true, Ordering::Relaxed);
        self.told.store(digest(attr), Ordering::Relaxed);
    }

    /// Notes that the kernel, which asks next, will hear these.
    pub(super) fn expect(&self, attr: &Attr) {
        self.heard.store(false, Ordering::Relaxed);
        self.told.store(digest(attr), Ordering::Relaxed);
    }

    /// Notes that the kernel was told to ask, for these.
    pub(super) fn ask(&self, attr: &Attr) {
        self.asked.store(digest(attr), Ordering::Relaxed);
    }

    pub(super) fn is_sure(&self, attr: &Attr, now: SystemTime) -> bool {
        let was_told = self.was_told(attr) && !is_fresh(attr, now);
        !self.is_unknown() && (was_told || self.was_asked(attr))
    }

    /// Whether it takes the file to be as long as these say.
    pub(super) fn is_size_sure(&self, attr: &Attr, now: SystemTime) -> bool {
        let has_heard = self.was_told(attr) && self.heard.load(Ordering::Relaxed);
        !self.is_unknown() && has_heard && !is_fresh(attr, now)
    }

    /// Notes that the kernel is made to take the file to be as long as these say; returns whether it was
    /// not before.
    pub(super) fn stretch(&self, attr: &Attr) -> bool {
        let length = digest(attr);
        self.stretched.swap(length, Ordering::Relaxed) != length
    }

    /// Notes whether the kernel did not know the node when it was told to ask.
    pub(super) fn set_unknown(&self, is_unknown: bool) {
        self.unknown.store(is_unknown, Ordering::Relaxed);
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.unknown.load(Ordering::Relaxed)
    }

    pub(super) fn was_asked(&self, attr: &Attr) -> bool {
        self.asked.load(Ordering::Relaxed) == digest(attr)
    }

    /// Notes that the kernel goes by what it is told for long.
    pub(super) fn trust(&self) {
        self.trusts.store(true, Ordering::Relaxed);
    }

    pub(super) fn trusts(&self) -> bool {
        self.trusts.load(Ordering::Relaxed)
    }

    /// Notes that it does no longer; returns whether it did.
    pub(super) fn distrust(&self) -> bool {
        self.trusts.swap(false, Ordering::Relaxed)
    }

    pub(super) fn was_told(&self, attr: &Attr) -> bool {
        self.told.load(Ordering::Relaxed) == digest(attr)
    }

    /// Notes that the file is about to be read as it is; returns whether it was the same when
    /// that was last noted.
    pub(super) fn see(&self, attr: &Attr, now: SystemTime) -> bool {
        let content = if is_settled(attr, now) { content_digest(attr) } else { 0 };
        self.seen.swap(content, Ordering::Relaxed) == content && content != 0
    }

    pub(super) fn names(&self) -> Names {
        match self.kind() {
            FileType::Directory => Names::One,
            _ => Names::Many,
        }
    }
}

/// How long ago a file must have changed for its next change to be seen by its times: longer
/// than the clock of any file system takes to tick, and than the kernel leaves what was stored in
/// a mapping unwritten (30 s by default); until that is written, more may be stored at the same
/// time.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// How long after a change the kernel may not know of it: longer than an answer that was older is
/// on its way, and than it takes until everything is looked at once more.
const FRESH_FOR: Duration = Duration::from_secs(2);

fn is_settled(attr: &Attr, now: SystemTime) -> bool {
    is_older(attr, now, SETTLED_AFTER)
}

/// Whether a file has changed of late.
pub(super) fn is_fresh(attr: &Attr, now: SystemTime) -> bool {
    !is_older(attr, now, FRESH_FOR)
}

fn is_older(attr: &Attr, now: SystemTime, than: Duration) -> bool {
    let changed = UNIX_EPOCH + Duration::new(attr.ctime, attr.ctime_nsec);
    now.duration_since(changed).is_ok_and(|age| age > than)
}

/// Of all that changes with a file's content. Never 0.
fn content_digest(attr: &Attr) -> u64 {
    let mut hasher = FxHasher::default();
    (attr.size, attr.mtime, attr.mtime_nsec, attr.ctime, attr.ctime_nsec).hash(&mut hasher);
    hasher.finish().max(1)
}

/// Of all that changes with a file's content or mode; its last access tells nothing of either.
fn digest(attr: &Attr) -> u64 {
    let mut hasher = FxHasher::default();
    (attr.size, attr.mode, attr.uid, attr.gid, attr.nlink).hash(&mut hasher);
    (attr.mtime, attr.mtime_nsec, attr.ctime, attr.ctime_nsec).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_holds_while_a_file_that_has_settled_shows_no_change() {
        let old = Attr { size: 3, ctime: 1_000, mtime: 1_000, ..Attr::default() };
        let others =
            [Attr { size: 4, ..old }, Attr { ctime_nsec: 1, ..old }, Attr { mtime: 999, ..old }];
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        for changed in others {
            let node = node_of_nothing();
            let seen = [old, old, changed, changed, old].map(|attr| node.see(&attr, at(2_000)));
            assert_eq!(seen, [false, true, false, true, false], "{changed:?}");
        }
        // Its times may not move with its next change; nor if the clock was set back.
        for now in [0, 1_001, 1_060] {
            let node = node_of_nothing();
            assert_eq!([(); 3].map(|()| node.see(&old, at(now))), [false; 3], "{now}");
            assert!(!node.see(&old, at(2_000)), "what was read then may be something else");
        }
    }

    #[test]
    fn the_size_of_what_was_changed_of_late_is_unsure() {
        let attr = Attr { ctime: 1_000, ctime_nsec: 500_000_000, ..Attr::default() };
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(millis);
        let fresh = [1_000_600, 1_002_500, 999_000].map(|millis| is_fresh(&attr, at(millis)));
        assert_eq!(fresh, [true; 3], "also if the clock was set back");
        assert!(!is_fresh(&attr, at(1_002_501)));
    }

    #[test]
    fn what_changed_of_late_the_kernel_is_told_to_ask_for_once_whatever_it_was_told() {
        let attr = Attr { ctime: 1_000, ..Attr::default() };
        let other = Attr { size: 4, ..attr };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let node = node_of_nothing();
        let is_sure = |attr, now| node.is_sure(attr, at(now));
        assert!(!is_sure(&attr, 1_000) && !is_sure(&attr, 2_000));
        node.tell(&attr);
        assert!(!is_sure(&attr, 1_000), "an older answer may be on its way");
        assert!(is_sure(&attr, 2_000) && !is_sure(&other, 2_000));
        node.ask(&other);
        assert!(is_sure(&other, 1_000) && !is_sure(&attr, 1_000));
        assert!(!node.was_told(&other), "it has not asked yet");
        node.set_unknown(true);
        assert!(!is_sure(&other, 1_000) && !is_sure(&attr, 2_000), "it hears of it only now");
    }

    #[test]
    fn the_kernel_knows_the_size_that_it_has_heard_and_not_one_that_it_is_to_ask_for() {
        let attr = Attr { ctime: 1_000, ..Attr::default() };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let node = node_of_nothing();
        let is_sure = |now| node.is_size_sure(&attr, at(now));
        node.expect(&attr);
        assert!(node.was_told(&attr) && !is_sure(2_000));
        node.tell(&attr);
        assert!(!is_sure(1_000) && is_sure(2_000));
        node.set_unknown(true);
        assert!(!is_sure(2_000));
        assert_eq!([node.stretch(&attr), node.stretch(&attr)], [true, false]);
    }

    #[derive(Debug)]
    struct Nothing;

    impl Anchor for Nothing {
        type Key = ();

        fn key(&self) {}

        fn kind(&self) -> FileType {
            FileType::RegularFile
        }

        fn is_told(&self) -> bool {
            false
        }
    }

    fn node_of_nothing() -> Node<Nothing> {
        Node::new(NodeId::ROOT, Nothing, 1)
    }
}
