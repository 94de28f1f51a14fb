//! Feeds of several devices: what is accepted, what is refused, and what each author had seen.

use gate_core::tree::id::{FileId, LinkId};
use gate_core::tree::op::{Attribute, OpFault};
use proptest::prelude::*;

use super::*;
use crate::entry::{Entry, OPS_MAX};
use crate::genesis::Genesis;
use crate::law;
use crate::members::{Change, RecordId};

/// A bucket of an owner, and feeds that all write to it.
struct World {
    owner: Identity,
    members: Members,
    bucket: BucketId,
}

/// One who writes, and what they have.
struct Peer {
    feed: OwnFeed,
    feeds: Feeds,
}

impl World {
    fn new() -> World {
        let owner = Identity::random();
        let genesis = Genesis::make(&owner, 0);
        let (members, _) = Members::found(&genesis, &owner, 0).unwrap();
        World { owner, members, bucket: genesis.id() }
    }

    fn peer(&self) -> Peer {
        Peer { feed: OwnFeed::new(&self.owner, self.bucket), feeds: Feeds::new(self.bucket) }
    }

    fn make(&self, peer: &Peer) -> Verified {
        peer.feed.make(&peer.feeds, &self.members, draft(&[delete(7)])).unwrap()
    }

    /// Writes an entry, and accepts it.
    fn write(&self, peer: &mut Peer) -> Verified {
        let entry = self.make(peer);
        self.give(peer, &entry).unwrap();
        entry
    }

    fn give(&self, peer: &mut Peer, entry: &Verified) -> Result<Seen, FeedError> {
        peer.feeds.accept(entry, &self.members, |_| None)
    }

    fn entry_key(&self) -> &crate::hash::Secret {
        &self.members.keys(0).unwrap().entry
    }
}

fn draft(ops: &[Op]) -> NewEntry<'_> {
    NewEntry { at_ms: 5, chunks: Vec::new(), ops }
}

fn delete(link: u8) -> Op {
    Op::Delete { link: LinkId::of_file([link; 16]) }
}

#[test]
fn an_entry_is_read_verified_and_opened_as_it_was_made() {
    let world = World::new();
    let mut peer = world.peer();
    for number in 0..3 {
        let made = world.write(&mut peer);
        let read = Entry::decode(made.bytes()).unwrap().verify(&world.bucket).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.id(), EntryId { feed: peer.feed.id(), number });
        assert_eq!(read.header().certificate.is_some(), number == 0);
        assert_eq!(read.open(world.entry_key()), Ok(vec![delete(7)]));
    }
    assert_eq!(peer.feeds.device(&peer.feed.id()), Some(world.owner.device()));
}

#[test]
fn who_has_no_key_verifies_all_but_the_operations() {
    let world = World::new();
    let entry = world.make(&world.peer());
    let mirror = Entry::decode(entry.bytes()).unwrap().verify(&world.bucket).unwrap();
    let wrong = crate::hash::Secret::new([0; 32]);
    assert_eq!(mirror.open(&wrong), Err(EntryError::NotOpened));
    let mut feeds = Feeds::new(world.bucket);
    feeds.accept(&mirror, &world.members, |_| None).unwrap();
    let plain = crate::record::encode(&delete(7));
    let shows = entry.bytes().windows(plain.len()).any(|bytes| bytes == plain);
    assert!(!shows, "operations are sealed");
}

#[test]
fn every_flipped_bit_and_every_cut_of_an_entry_is_refused() {
    let world = World::new();
    let bytes = world.make(&world.peer()).bytes().to_vec();
    let judge = |bytes: &[u8]| Entry::decode(bytes)?.verify(&world.bucket);
    assert!(judge(&bytes).is_ok());
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(judge(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(judge(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(judge(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn n16_an_entry_of_another_version_is_refused_by_name() {
    let world = World::new();
    let mut bytes = world.make(&world.peer()).bytes().to_vec();
    bytes[0] = 2;
    let error = Entry::decode(&bytes).unwrap_err();
    assert_eq!(error, EntryError::UnknownVersion(2));
    assert!(error.to_string().contains("version 2"));
}

#[test]
fn n12_a_feed_shows_no_secret() {
    let world = World::new();
    let feed = OwnFeed::of(&[0xAB; 32], &world.owner, world.bucket);
    let shown = format!("{feed:?}");
    assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
}

#[test]
fn an_entry_of_another_bucket_or_another_device_is_refused() {
    let (world, other) = (World::new(), World::new());
    let entry = world.make(&world.peer());
    let read = Entry::decode(entry.bytes()).unwrap();
    assert_eq!(read.verify(&other.bucket), Err(EntryError::OtherBucket));
    // The certificate of another feed of the same device.
    let mut thief = world.peer();
    thief.feed.certificate = world.peer().feed.certificate;
    let stolen = world.make(&thief);
    let read = Entry::decode(stolen.bytes()).unwrap();
    assert_eq!(read.verify(&world.bucket), Err(EntryError::NotCertified));
}

#[test]
fn operations_that_are_none_and_too_many_are_not_sealed() {
    let world = World::new();
    let peer = world.peer();
    let make = |ops: &[Op]| peer.feed.make(&peer.feeds, &world.members, draft(ops));
    let mode = Op::SetAttr { file: FileId::ROOT, attribute: Attribute::Mode(u32::MAX) };
    let fault = OpFault("the mode has more than permissions");
    assert_eq!(make(&[delete(1), mode]), Err(EntryError::Op { place: 1, fault }));
    let many = vec![delete(1); OPS_MAX + 1];
    assert_eq!(make(&many), Err(EntryError::TooMany("operations")));
    assert_eq!(make(&many[1..]), Err(EntryError::TooLong));
    let chunks = (0..=crate::entry::CHUNKS_MAX as u64).map(|number| {
        let mut address = [0; 32];
        address[..8].copy_from_slice(&number.to_be_bytes());
        Address(address)
    });
    let draft = NewEntry { chunks: chunks.collect(), ..draft(&[]) };
    let made = peer.feed.make(&peer.feeds, &world.members, draft);
    assert_eq!(made, Err(EntryError::TooMany("chunks")));
}

#[test]
fn what_is_sealed_by_somebody_who_means_harm_is_refused() {
    let world = World::new();
    let peer = world.peer();
    let entry = world.make(&peer);
    let seal = |plain: &[u8]| {
        let header = crate::record::encode(entry.header());
        let sealed = crate::envelope::seal(world.entry_key(), &header, plain);
        let mut bytes = header;
        bytes.extend(crate::record::encode(&(sealed.len() as u64)));
        bytes.extend(sealed);
        let hash = *blake3::hash(&bytes).as_bytes();
        bytes.extend(crate::sign::sign(&peer.feed.key, Purpose::Entry, &hash).0);
        let entry = Entry::decode(&bytes).unwrap().verify(&world.bucket).unwrap();
        entry.open(world.entry_key())
    };
    let all = crate::record::encode(&u64::MAX);
    assert_eq!(seal(&all), Err(EntryError::TooMany("operations")));
    assert_eq!(seal(&[]), Err(EntryError::NoOps));
    assert_eq!(seal(&[1]), Err(EntryError::NoOps), "the operation is missing");
    assert_eq!(seal(&[0, 0]), Err(EntryError::NoOps), "something comes after");
    assert_eq!(seal(&[0]), Ok(Vec::new()));
    let write_with = |tail: &[u8]| {
        // An operation that writes, with a base of so many operations.
        let head = [&[1, 4][..], &[1; 16], &[0, 0, 0]].concat();
        seal(&[&head[..], tail].concat())
    };
    assert!(write_with(&[0, 0]).is_ok());
    assert_eq!(write_with(&all), Err(EntryError::NoOps));
}

#[test]
fn an_entry_waits_for_all_it_depends_on() {
    let world = World::new();
    let (mut one, mut two, mut late) = (world.peer(), world.peer(), world.peer());
    let first = world.write(&mut one);
    let second = world.write(&mut one);
    assert_eq!(world.give(&mut late, &second), Err(FeedError::Missing(first.id())));
    for entry in [&first, &second] {
        world.give(&mut two, entry).unwrap();
    }
    let answer = world.write(&mut two);
    assert_eq!(answer.header().deps, [second.id()]);
    assert_eq!(world.give(&mut late, &answer), Err(FeedError::Missing(second.id())));
    for entry in [&first, &second, &answer] {
        world.give(&mut late, entry).unwrap();
    }
    assert_eq!(world.give(&mut late, &answer), Err(FeedError::Known));
    assert_eq!(late.feeds.frontier(), two.feeds.frontier());
}

#[test]
fn two_entries_of_one_number_are_both_proof() {
    let world = World::new();
    let mut peer = world.peer();
    let first = world.make(&peer);
    let second = world.make(&peer);
    assert_ne!(first.hash(), second.hash(), "nonces differ");
    world.give(&mut peer, &first).unwrap();
    let error = peer.feeds.accept(&second, &world.members, |id| {
        assert_eq!(id, first.id());
        Some(first.clone())
    });
    let fork = Fork { hash: first.hash(), first: Some(first.clone()), second: second.clone() };
    assert_eq!(error, Err(FeedError::Forked(Box::new(fork))));
    assert_eq!(peer.feeds.hash(first.id()), Some(first.hash()), "the first one stays");
    // Who has the other one cannot go on from this one.
    let mut other = world.peer();
    world.give(&mut other, &second).unwrap();
    let next = world.make(&peer);
    assert_eq!(world.give(&mut other, &next), Err(FeedError::NotChained));
}

#[test]
fn an_entry_that_lies_about_its_place_is_refused() {
    let world = World::new();
    let (mut one, mut two) = (world.peer(), world.peer());
    let first = world.write(&mut one);
    world.give(&mut two, &first).unwrap();
    world.write(&mut two);
    let honest = world.make(&two).header().clone();
    let key = world.entry_key();
    let mut give = |header: Header| {
        let entry = header.seal(&two.feed.key, [9; 24], key, &[]).unwrap();
        two.feeds.accept(&entry, &world.members, |_| None)
    };
    let late = Header { lamport: u64::MAX, ..honest.clone() };
    assert_eq!(give(late), Err(FeedError::WrongLamport));
    let early = Header { lamport: 1, ..honest.clone() };
    assert_eq!(give(early), Err(FeedError::WrongLamport));
    let twice = Header { deps: vec![first.id()], ..honest.clone() };
    assert_eq!(give(twice), Err(FeedError::SeenBefore));
    let unchained = Header { previous: EntryHash([1; 32]), ..honest.clone() };
    assert_eq!(give(unchained), Err(FeedError::NotChained));
    let epoch = Header { epoch: 1, ..honest.clone() };
    assert_eq!(give(epoch), Err(FeedError::WrongEpoch(1)));
    let record = RecordId([1; 32]);
    let unknown = Header { members: record, ..honest.clone() };
    assert_eq!(give(unknown), Err(FeedError::MissingMembers(record)));
    assert!(give(honest).is_ok());
}

#[test]
fn who_is_no_writer_by_the_record_it_names_writes_nothing() {
    let mut world = World::new();
    let device = Identity::random();
    let before = world.members.head();
    let change = |world: &mut World, change| {
        let bytes = world.members.make(&world.owner, 0, change).unwrap();
        world.members.accept(&bytes, Some(&world.owner)).unwrap()
    };
    let (id, key) = (device.device(), device.agreement_key());
    change(&mut world, Change::Add { device: id, key, role: Role::Writer });
    let mut peer = world.peer();
    peer.feed = OwnFeed::new(&device, world.bucket);
    let entry = world.make(&peer);
    let back_dated = Header { members: before, ..entry.header().clone() };
    let sealed = back_dated.seal(&peer.feed.key, [1; 24], world.entry_key(), &[]).unwrap();
    assert_eq!(world.give(&mut peer, &sealed), Err(FeedError::NoWriter(id)));
    let newest = change(&mut world, Change::Role { device: id, role: Role::Reader });
    let late = Header { members: newest, ..entry.header().clone() };
    let sealed = late.seal(&peer.feed.key, [1; 24], world.entry_key(), &[]).unwrap();
    assert_eq!(world.give(&mut peer, &sealed), Err(FeedError::NoWriter(id)));
    assert!(world.give(&mut peer, &entry).is_ok(), "it was a writer by what it knew");
}

#[test]
fn a_feed_does_not_go_back_in_the_membership() {
    let mut world = World::new();
    let mut peer = world.peer();
    let before = world.members.head();
    let device = Identity::random();
    let (id, key) = (device.device(), device.agreement_key());
    let add = Change::Add { device: id, key, role: Role::Reader };
    let bytes = world.members.make(&world.owner, 0, add).unwrap();
    world.members.accept(&bytes, None).unwrap();
    world.write(&mut peer);
    let next = Header { members: before, ..world.make(&peer).header().clone() };
    let sealed = next.seal(&peer.feed.key, [1; 24], world.entry_key(), &[]).unwrap();
    assert_eq!(world.give(&mut peer, &sealed), Err(FeedError::OlderMembers));
}

/// Peers write and hear of one another in any order; an oracle keeps whole sets.
#[test]
fn what_an_author_had_seen_is_what_it_had() {
    let steps = proptest::collection::vec((0..3_usize, 0..4_usize), 1..40);
    law::hold(4, &steps, |steps| {
        let world = World::new();
        let mut peers = [world.peer(), world.peer(), world.peer()];
        let mut all: Vec<Verified> = Vec::new();
        let mut had: Vec<Vec<EntryId>> = vec![Vec::new(); 3];
        for (who, what) in steps {
            if what == who || what == 3 {
                let entry = world.make(&peers[who]);
                let seen = world.give(&mut peers[who], &entry).unwrap();
                for other in &all {
                    prop_assert_eq!(seen.covers(other.id()), had[who].contains(&other.id()));
                }
                prop_assert!(!seen.covers(entry.id()));
                let deps = &entry.header().deps;
                for dep in deps {
                    let implied = deps.iter().filter(|other| *other != dep);
                    let mut implied = implied.filter_map(|other| peers[who].feeds.seen_by(*other));
                    prop_assert!(!implied.any(|seen| seen.covers(*dep)), "deps are the least");
                }
                had[who].push(entry.id());
                all.push(entry);
            } else {
                // One hears all that another has.
                let heard = had[what].clone();
                for entry in all.iter().filter(|entry| heard.contains(&entry.id())) {
                    match world.give(&mut peers[who], entry) {
                        Ok(seen) => {
                            prop_assert_eq!(Some(seen), peers[what].feeds.seen_by(entry.id()));
                            had[who].push(entry.id());
                        }
                        Err(error) => prop_assert_eq!(error, FeedError::Known),
                    }
                }
            }
        }
        Ok(())
    });
}
