//! Feeds: whose they are, how far each has come, and what an entry had seen.
//!
//! A feed is a line without forks, written by one run of one device. An entry is accepted once
//! all it depends on was, if its author was a writer by the record of membership that it names.
//! Not here: what becomes of entries when their author is removed later.

mod error;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use gate_core::tree::id::{Address, EntryId, FeedId};
use gate_core::tree::op::Op;
use gate_core::tree::seen::Seen;
use zeroize::Zeroizing;

pub use error::{FeedError, Fork};

use crate::entry::{self, Certificate, EntryError, EntryHash, Header, Verified};
use crate::genesis::BucketId;
use crate::identity::{DeviceId, Identity};
use crate::members::{Members, Role};
use crate::random;
use crate::sign::{self, Purpose, Signature};

/// So many bytes of a device's id are shown in names.
const LABEL_BYTES: usize = 4;

/// A feed of this run of this device. Its secret is never stored.
pub struct OwnFeed {
    key: SigningKey,
    certificate: Certificate,
    bucket: BucketId,
}

/// What is to become an entry.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// By the author's clock, in ms since 1970.
    pub at_ms: u64,
    /// The chunks that it brings, in any order.
    pub chunks: Vec<Address>,
    pub ops: &'a [Op],
}

/// All feeds of a bucket, as far as they were accepted.
#[derive(Debug)]
pub struct Feeds {
    bucket: BucketId,
    lines: BTreeMap<FeedId, Line>,
}

#[derive(Debug)]
struct Line {
    device: DeviceId,
    /// Of each entry.
    marks: Vec<Mark>,
    /// What is seen of each other feed: from which number on, and how much. An entry seldom sees
    /// something new, and all later ones of its feed see it, too.
    rises: BTreeMap<FeedId, Vec<(u64, u64)>>,
    /// The place of the record of membership that the newest entry names.
    members: usize,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    hash: EntryHash,
    lamport: u64,
}

impl OwnFeed {
    /// Begins a feed.
    pub fn new(device: &Identity, bucket: BucketId) -> OwnFeed {
        OwnFeed::of(&Zeroizing::new(random::bytes()), device, bucket)
    }

    pub(crate) fn of(seed: &[u8; 32], device: &Identity, bucket: BucketId) -> OwnFeed {
        let key = SigningKey::from_bytes(seed);
        let feed = FeedId(key.verifying_key().to_bytes());
        let signature = device.sign(Purpose::Feed, &entry::certified(&bucket, &feed));
        OwnFeed { key, certificate: Certificate { device: device.device(), signature }, bucket }
    }

    /// Returns what it is called.
    pub fn id(&self) -> FeedId {
        FeedId(self.key.verifying_key().to_bytes())
    }

    /// Returns that it is its device's.
    pub(crate) fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Signs what has a hash.
    pub(crate) fn sign(&self, purpose: Purpose, hash: &[u8; 32]) -> Signature {
        sign::sign(&self.key, purpose, hash)
    }

    /// Makes the next entry. It must be kept for sure before it is accepted or sent: two entries
    /// of one number are a fork.
    pub fn make(
        &self,
        feeds: &Feeds,
        members: &Members,
        draft: NewEntry<'_>,
    ) -> Result<Verified, EntryError> {
        self.make_with(random::bytes(), feeds, members, draft)
    }

    pub(crate) fn make_with(
        &self,
        nonce: [u8; 24],
        feeds: &Feeds,
        members: &Members,
        draft: NewEntry<'_>,
    ) -> Result<Verified, EntryError> {
        let feed = self.id();
        let epoch = members.epoch().unwrap_or(0);
        let keys = members.keys(epoch).ok_or(EntryError::NoKey(epoch))?;
        let line = feeds.lines.get(&feed);
        let number = feeds.count(&feed);
        let deps = feeds.heads_unseen(&feed);
        let mut chunks = draft.chunks;
        chunks.sort_unstable();
        chunks.dedup();
        let header = Header {
            version: entry::VERSION,
            bucket: self.bucket,
            feed,
            number,
            previous: line.map_or(EntryHash::NONE, |line| line.head().hash),
            certificate: (number == 0).then_some(self.certificate),
            lamport: feeds.lamport_after(&feed, &deps).ok_or(EntryError::Disorder)?,
            deps,
            members: members.head(),
            epoch,
            at_ms: draft.at_ms,
            chunks,
        };
        header.seal(&self.key, nonce, &keys.entry, draft.ops)
    }
}

impl Feeds {
    /// Returns a bucket's feeds before the first entry.
    pub fn new(bucket: BucketId) -> Feeds {
        Feeds { bucket, lines: BTreeMap::new() }
    }

    /// Accepts an entry, and returns what its author had seen before it.
    ///
    /// `recall` finds an entry that was accepted: it is asked for when there are two of one number.
    pub fn accept(
        &mut self,
        entry: &Verified,
        members: &Members,
        recall: impl FnOnce(EntryId) -> Option<Verified>,
    ) -> Result<Seen, FeedError> {
        let header = entry.header();
        let id = entry.id();
        if header.bucket != self.bucket {
            return Err(FeedError::OtherBucket);
        }
        if let Some(mark) = self.mark(id) {
            return Err(if mark.hash == entry.hash() {
                FeedError::Known
            } else {
                let fork = Fork { hash: mark.hash, first: recall(id), second: entry.clone() };
                FeedError::Forked(Box::new(fork))
            });
        }
        self.judge_place(header)?;
        let device = self.judge_author(header, members)?;
        let place = members.place(&header.members).expect("judge_author() found the record");
        let seen = self.seen_with(id, &header.deps);
        let line = self.lines.entry(id.feed).or_insert_with(|| Line {
            device,
            marks: Vec::new(),
            rises: BTreeMap::new(),
            members: place,
        });
        for (feed, count) in seen.iter().filter(|(feed, _)| *feed != id.feed) {
            let rises = line.rises.entry(feed).or_default();
            if rises.last().is_none_or(|(_, known)| *known < count) {
                rises.push((id.number, count));
            }
        }
        line.marks.push(Mark { hash: entry.hash(), lamport: header.lamport });
        line.members = place;
        Ok(seen)
    }

    /// Returns how many entries of a feed were accepted.
    pub fn count(&self, feed: &FeedId) -> u64 {
        self.lines.get(feed).map_or(0, |line| line.marks.len() as u64)
    }

    /// Returns whose feed it is.
    pub fn device(&self, feed: &FeedId) -> Option<DeviceId> {
        self.lines.get(feed).map(|line| line.device)
    }

    /// Returns all that was accepted.
    pub fn frontier(&self) -> Seen {
        self.lines.iter().map(|(feed, line)| (*feed, line.marks.len() as u64)).collect()
    }

    /// Returns the hash of an entry that was accepted.
    pub fn hash(&self, entry: EntryId) -> Option<EntryHash> {
        self.mark(entry).map(|mark| mark.hash)
    }

    /// Returns where an entry stands in the order of all, but for its feed.
    pub fn lamport(&self, entry: EntryId) -> Option<u64> {
        self.mark(entry).map(|mark| mark.lamport)
    }

    /// Returns what the author of an entry had seen before it: all it depends on, not itself.
    pub fn seen_by(&self, entry: EntryId) -> Option<Seen> {
        self.mark(entry)?;
        let line = self.lines.get(&entry.feed)?;
        let own = (entry.feed, entry.number);
        let count_at = |(feed, rises): (&FeedId, &Vec<(u64, u64)>)| {
            let known = rises.partition_point(|(from, _)| *from <= entry.number);
            Some((*feed, rises[..known].last()?.1))
        };
        Some(line.rises.iter().filter_map(count_at).chain([own]).collect())
    }

    fn mark(&self, entry: EntryId) -> Option<&Mark> {
        let line = self.lines.get(&entry.feed)?;
        line.marks.get(usize::try_from(entry.number).ok()?)
    }

    /// Judges what comes before an entry.
    fn judge_place(&self, header: &Header) -> Result<(), FeedError> {
        let feed = header.feed;
        let previous = header.number.checked_sub(1).map(|number| EntryId { feed, number });
        let expected = match previous {
            None => EntryHash::NONE,
            Some(previous) => self.hash(previous).ok_or(FeedError::Missing(previous))?,
        };
        if header.previous != expected {
            return Err(FeedError::NotChained);
        }
        if let Some(missing) = header.deps.iter().find(|dep| self.mark(**dep).is_none()) {
            return Err(FeedError::Missing(*missing));
        }
        let seen = self.seen_after(&feed);
        if header.deps.iter().any(|dep| seen.covers(*dep)) {
            return Err(FeedError::SeenBefore);
        }
        if Some(header.lamport) != self.lamport_after(&feed, &header.deps) {
            return Err(FeedError::WrongLamport);
        }
        Ok(())
    }

    /// Judges who made an entry, by the record of membership that it names.
    fn judge_author(&self, header: &Header, members: &Members) -> Result<DeviceId, FeedError> {
        let line = self.lines.get(&header.feed);
        let device = line
            .map(|line| line.device)
            .or(header.certificate.map(|certificate| certificate.device))
            .ok_or(FeedError::NotChained)?;
        let unknown = FeedError::MissingMembers(header.members);
        let place = members.place(&header.members).ok_or(unknown)?;
        if line.is_some_and(|line| place < line.members) {
            return Err(FeedError::OlderMembers);
        }
        if members.role_at(&device, &header.members) < Some(Role::Writer) {
            return Err(FeedError::NoWriter(device));
        }
        if members.epoch_at(&header.members) != Some(header.epoch) {
            return Err(FeedError::WrongEpoch(header.epoch));
        }
        Ok(device)
    }

    /// Returns what the next entry of a feed is called, and its place in the order of all.
    pub fn next(&self, feed: &FeedId) -> Option<(EntryId, u64)> {
        let lamport = self.lamport_after(feed, &self.heads_unseen(feed))?;
        Some((EntryId { feed: *feed, number: self.count(feed) }, lamport))
    }

    /// Returns the newest entries that a feed has not seen, without those that others imply.
    fn heads_unseen(&self, feed: &FeedId) -> Vec<EntryId> {
        let seen = self.seen_after(feed);
        let heads = self.lines.iter().filter_map(|(other, line)| {
            let number = (line.marks.len() as u64).checked_sub(1)?;
            Some(EntryId { feed: *other, number })
        });
        let mut heads: Vec<_> =
            heads.filter(|head| head.feed != *feed && !seen.covers(*head)).collect();
        let mut implied = Seen::new();
        for seen in heads.iter().filter_map(|head| self.seen_by(*head)) {
            implied.join(&seen);
        }
        heads.retain(|head| !implied.covers(*head));
        heads
    }

    /// Returns what the next entry of a feed has seen by those before it in that.
    fn seen_after(&self, feed: &FeedId) -> Seen {
        let head = EntryId { feed: *feed, number: self.count(feed).saturating_sub(1) };
        let mut seen = self.seen_by(head).unwrap_or_default();
        if self.count(feed) > 0 {
            seen.see(head);
        }
        seen
    }

    fn seen_with(&self, id: EntryId, deps: &[EntryId]) -> Seen {
        let mut seen = self.seen_after(&id.feed);
        for dep in deps {
            seen.join(&self.seen_by(*dep).unwrap_or_default());
            seen.see(*dep);
        }
        seen
    }

    /// Returns one more than the most of what the next entry of a feed depends on.
    fn lamport_after(&self, feed: &FeedId, deps: &[EntryId]) -> Option<u64> {
        let own = self.lines.get(feed).map(|line| line.head().lamport);
        let others = deps.iter().filter_map(|dep| self.mark(*dep)).map(|mark| mark.lamport);
        others.chain(own).max().unwrap_or(0).checked_add(1)
    }
}

/// What feeds are called in names, as far as known at some time. A clone costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Labels(Arc<HashMap<FeedId, String>>);

impl Labels {
    /// Returns what a feed is called.
    pub fn of(&self, feed: &FeedId) -> String {
        self.0.get(feed).cloned().unwrap_or_default()
    }
}

impl Feeds {
    /// Returns what the feeds of now are called.
    pub fn labels(&self) -> Labels {
        Labels(Arc::new(self.lines.keys().map(|feed| (*feed, self.label(feed))).collect()))
    }

    /// A feed is known by the device that writes it.
    fn label(&self, feed: &FeedId) -> String {
        let bytes = self.device(feed).map_or(feed.0, |device| device.0);
        bytes[..LABEL_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Line {
    fn head(&self) -> &Mark {
        self.marks.last().expect("a line begins with an entry")
    }
}

impl fmt::Debug for OwnFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "own {:?}", self.id())
    }
}
