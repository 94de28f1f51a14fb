//! Bytes that were written once, by fixed keys: a format does not change by accident.
//!
//! `fixtures/v1` holds the files of a bucket. Who changes a format on purpose gives it another
//! version, and keeps these. `GATE_WRITE_FIXTURES=1` writes those that are not there yet.

use std::borrow::Cow;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gate_core::tree::content::Body;
use gate_core::tree::id::{Address, EntryId, FeedId, FileId, LinkId, OpId};
use gate_core::tree::op::{
    Attribute, ChunkRef, Content, Extent, Fence, Kind as FileKind, Name, Op, Span, Stamp,
};
use gate_core::tree::tables::Sum;
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, Head, NewCheckpoint};
use crate::entry::{Entry, EntryHash};
use crate::feed::{Feeds, NewEntry, OwnFeed};
use crate::frames::{Frames, Kind};
use crate::genesis::Genesis;
use crate::hash::Secret;
use crate::identity::{Costs, Identity, Passphrase};
use crate::log::{Log, Record};
use crate::members::{Change, EpochKeys, Members, Role};
use crate::shelf::rows::Tallied;
use crate::vault::Stored;

const AT_MS: u64 = 1_700_000_000_000;

fn fixture(name: &str, made: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(name);
    if !path.exists() && std::env::var_os("GATE_WRITE_FIXTURES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn owner() -> Identity {
    Identity::from_secrets(&[1; 32], [2; 32])
}

fn writer() -> Identity {
    Identity::from_secrets(&[3; 32], [4; 32])
}

fn genesis() -> Genesis {
    Genesis::make_of(&owner(), AT_MS, Uuid::from_bytes([7; 16]), [8; 32])
}

/// Each change there is, by the owner.
fn members() -> (Members, Vec<Vec<u8>>) {
    let (genesis, owner, writer) = (genesis(), owner(), writer());
    let keys = EpochKeys::of(Secret::new([9; 32]));
    let sealed = keys.seal_with([10; 32], &genesis.id(), owner.device(), &owner.agreement_key());
    let epoch = Change::Epoch { number: 0, check: keys.check(), keys: vec![sealed.unwrap()] };
    let add = |device: &Identity, role| Change::Add {
        device: device.device(),
        key: device.agreement_key(),
        role,
    };
    let id = writer.device();
    let changes = [
        add(&owner, Role::Owner),
        epoch,
        add(&writer, Role::Mirror),
        Change::Role { device: id, role: Role::Writer },
        Change::Remove { device: id, cut: vec![(FeedId([1; 32]), 300), (FeedId([2; 32]), 0)] },
    ];
    let mut members = Members::new(&genesis);
    let mut log = Vec::new();
    for (number, change) in changes.into_iter().enumerate() {
        let bytes = members.make(&owner, AT_MS + number as u64, change).unwrap();
        members.accept(&bytes, Some(&owner)).unwrap();
        log.push(bytes);
    }
    (members, log)
}

/// Each operation there is.
fn ops() -> Vec<Op> {
    let name = Name::try_from(&b"name"[..]).unwrap();
    let (link, file) = (LinkId::of_file([1; 16]), FileId::of_file([2; 16]));
    let parent = FileId::of_directory(FileId::ROOT, name.bytes(), 3);
    let modified = Stamp { seconds: -5, nanos: 999_999_999 };
    let create = |link, file, parent, kind, former| {
        let name = name.clone();
        Op::Create { link, file, parent, name, kind, mode: 0o644, modified, former }
    };
    let entry = EntryId { feed: FeedId([13; 32]), number: 200 };
    let base = vec![OpId { entry, place: 7 }];
    let chunk = ChunkRef {
        address: Address([14; 32]),
        key: [15; 32],
        plain_len: 65_536,
        from: 10,
        len: 4096,
    };
    let extents = vec![Extent { offset: 100, chunk }];
    let write = |size, content, fence| Op::Write { file, size, content, base: base.clone(), fence };
    let fence = Some(Fence { epoch: 2, token: 3000 });
    let patch = Content::Patch {
        of: base[0],
        zeros: vec![Span { offset: 0, len: 50 }],
        extents: extents.clone(),
    };
    let extended = |value| Attribute::Extended { name: b"user.x".to_vec(), value };
    let set = |attribute| Op::SetAttr { file, attribute };
    vec![
        create(LinkId::of_directory(parent), parent, FileId::ROOT, FileKind::Directory, 3),
        create(link, file, parent, FileKind::File, 0),
        create(link, file, parent, FileKind::Symlink(b"target".to_vec()), 0),
        Op::Link { link, file, parent, name: name.clone() },
        Op::Move { link, parent, name: name.clone() },
        Op::Delete { link },
        write(5, Content::Inline(b"bytes".to_vec()), None),
        write(1 << 40, Content::Extents(extents.clone()), fence),
        write(1 << 20, patch, None),
        set(Attribute::Mode(0o7777)),
        set(Attribute::Modified(modified)),
        set(extended(Some(b"value".to_vec()))),
        set(extended(None)),
        Op::Resolve { file, given_up: base.clone() },
    ]
}

/// Returns the bytes of a file of frames.
fn framed(kind: Kind, payloads: &[&[u8]]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    Frames::create(&path, kind).unwrap().append(payloads).unwrap();
    fs::read(path).unwrap()
}

/// Returns what the frames of a fixture hold.
fn unframed(kind: Kind, bytes: &[u8]) -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = &directory.path().join("file");
    fs::write(path, bytes).unwrap();
    let mut held = Vec::new();
    let (_, found) = Frames::open(path, kind, |_, payload| held.push(payload.to_vec())).unwrap();
    assert_eq!(found, Default::default());
    held
}

#[test]
fn identities_are_written_as_ever() {
    let made = owner().encode(None).unwrap();
    let open = fixture("identity-open", &made);
    assert_eq!(*made, open);
    assert_eq!(Identity::decode(&open, None).unwrap().device(), owner().device());
    let costs = Costs { memory_kib: 64, passes: 3, lanes: 2 };
    let words = Passphrase::costing(b"correct horse".to_vec(), costs).unwrap();
    let made = owner().encode_sealed(&words, &[5; 16], [6; 24]).unwrap();
    let sealed = fixture("identity-sealed", &made);
    assert_eq!(*made, sealed);
    let opened = Identity::decode(&sealed, Some(&words)).unwrap();
    assert_eq!(opened.device(), owner().device());
    assert_eq!(opened.agreement_key(), owner().agreement_key());
}

#[test]
fn a_genesis_is_written_as_ever() {
    let kept = fixture("genesis", genesis().bytes());
    assert_eq!(genesis().bytes(), kept);
    let read = Genesis::decode(&kept).unwrap();
    assert_eq!((read.owner(), read.made_at_ms()), (owner().device(), AT_MS));
    assert_eq!(read.uuid(), Uuid::from_bytes([7; 16]));
    let id = read.id().to_string();
    assert_eq!(id.as_bytes(), fixture("bucket-id", id.as_bytes()));
}

#[test]
fn a_log_of_membership_is_written_as_ever() {
    let (made, log) = members();
    let log: Vec<_> = log.iter().map(Vec::as_slice).collect();
    let bytes = framed(Kind::MEMBERS, &log);
    let kept = fixture("members", &bytes);
    assert_eq!(bytes, kept);
    let mut read = Members::new(&genesis());
    for record in unframed(Kind::MEMBERS, &kept) {
        read.accept(&record, Some(&owner())).unwrap();
    }
    assert_eq!(read.head(), made.head());
    let keys = EpochKeys::of(Secret::new([9; 32]));
    assert_eq!(read.keys(0).unwrap().checkpoint, keys.checkpoint);
}

#[test]
fn entries_are_written_as_ever() {
    let (members, _) = members();
    let bucket = genesis().id();
    let feed = OwnFeed::of(&[11; 32], &owner(), bucket);
    let other = OwnFeed::of(&[12; 32], &owner(), bucket);
    let mut feeds = Feeds::new(bucket);
    let ops = ops();
    let mut made = Vec::new();
    for (nonce, (feed, ops)) in
        [(&feed, &ops[..1]), (&other, &ops[..]), (&feed, &[])].iter().enumerate()
    {
        let chunks = vec![Address([14; 32]), Address([13; 32])];
        let draft = NewEntry { at_ms: AT_MS, chunks, ops };
        let entry = feed.make_with([nonce as u8; 24], &feeds, &members, draft).unwrap();
        feeds.accept(&entry, &members, |_| None).unwrap();
        made.push(entry);
    }
    let payloads: Vec<_> = made.iter().map(|entry| entry.bytes()).collect();
    let bytes = framed(Kind::ENTRIES, &payloads);
    let kept = fixture("entries", &bytes);
    assert_eq!(bytes, kept);
    let mut read = Feeds::new(bucket);
    let mut held = Vec::new();
    for bytes in unframed(Kind::ENTRIES, &kept) {
        let entry = Entry::decode(&bytes).unwrap().verify(&bucket).unwrap();
        read.accept(&entry, &members, |_| None).unwrap();
        held.push(entry.open(&members.keys(0).unwrap().entry).unwrap());
    }
    assert_eq!(held, [ops[..1].to_vec(), ops, Vec::new()]);
    assert_eq!(read.frontier(), feeds.frontier());
}

#[test]
fn a_checkpoint_is_written_as_ever() {
    let (members, _) = members();
    let keys = EpochKeys::of(Secret::new([9; 32]));
    let own = OwnFeed::of(&[11; 32], &owner(), genesis().id());
    let head = |feed, number| Head {
        entry: EntryId { feed: FeedId([feed; 32]), number },
        hash: EntryHash([feed + 10; 32]),
    };
    let chunk = ChunkRef {
        address: Address([14; 32]),
        key: [15; 32],
        plain_len: 65_536,
        from: 0,
        len: 65_536,
    };
    let tallied = Tallied { hash: [16; 32], sum: Sum([1, 2, 300, u64::MAX]) };
    let new = NewCheckpoint {
        bucket: genesis().id(),
        members: members.head(),
        epoch: 0,
        at_ms: AT_MS,
        tables: 3,
        heads: vec![head(1, 0), head(2, 300)],
        stored: Stored {
            size: 65_536,
            content: Content::Extents(vec![Extent { offset: 0, chunk }]),
            chunks: vec![chunk.address],
        },
        tallied,
    };
    let made = Checkpoint::make_with([6; 24], &own, &keys.checkpoint, new).unwrap().encode_file();
    let kept = fixture("checkpoint", &made);
    assert_eq!(made, kept);
    let read = Checkpoint::decode_file(&kept).unwrap();
    read.verify(&genesis().id()).unwrap();
    assert_eq!(read.header().certificate.device, owner().device());
    assert_eq!(read.header().heads[1], head(2, 300));
    let held = read.open(&keys.checkpoint).unwrap();
    assert_eq!((held.tallied(), held.size), (tallied, 65_536));
    assert_eq!(held.body(), Body::Extents(vec![Extent { offset: 0, chunk }]));
}

/// Each record there is.
fn records() -> Vec<Record<'static>> {
    let file = FileId::of_file([2; 16]);
    let entry = EntryId { feed: FeedId([13; 32]), number: 200 };
    let base = vec![OpId { entry, place: 7 }];
    let chunk =
        ChunkRef { address: Address([14; 32]), key: [15; 32], plain_len: 400, from: 0, len: 400 };
    let fence = Some(Fence { epoch: 2, token: 3000 });
    vec![
        Record::Op(Op::Delete { link: LinkId::of_file([1; 16]) }),
        Record::Begin { file, base: base.clone(), size: 1 << 20, fence },
        Record::Bytes { file, at: 300, bytes: Cow::Borrowed(b"bytes") },
        Record::Sealed { file, extents: vec![Extent { offset: 100, chunk }] },
        Record::Zeros { file, span: Span { offset: 0, len: 50 } },
        Record::Size { file, size: 500 },
        Record::Replace { from: FileId::of_file([3; 16]), to: file, base },
        Record::Drop { file },
        Record::Freeze { file },
        Record::Cut { entry, ops: 1, writes: vec![(file, 2)] },
    ]
}

#[test]
fn a_log_is_written_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    let keys = owner().local_keys(&genesis().id());
    let records = records();
    Log::begin_with(directory.path(), &keys, [16; 32], |log| {
        log.append(&records[..1])?;
        log.append(&records[1..])
    })
    .unwrap();
    let path = directory.path().join("dirty");
    let made = fs::read(&path).unwrap();
    let kept = fixture("dirty", &made);
    assert_eq!(made, kept);
    fs::write(&path, kept).unwrap();
    let mut held = Vec::new();
    let rest = Log::read(directory.path(), &keys, |records| {
        held.push(records);
        ControlFlow::Continue(())
    });
    assert_eq!(rest.unwrap(), None);
    assert_eq!(held, [records[..1].to_vec(), records[1..].to_vec()]);
}
