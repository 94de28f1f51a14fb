//! The tables of the index are those in memory.

use std::collections::BTreeSet;

use gate_core::tree::id::Address;
use gate_core::tree::op::{Attribute, ChunkRef, Content, Extent, Kind, Op, Stamp};
use gate_core::tree::overlay::Overlay;
use gate_core::tree::state::{Batch, State};
use gate_core::tree::tables::Memory;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase};

use super::*;
use crate::law;

const NAMES: [&[u8]; 5] = [b"a", b"a\x01", b"ab", b"b", b"\xff"];

/// Numbers choose feed, what it had seen, what is done, and to what.
pub(crate) type Choice = (u8, bool, u8, u8, u8);

fn directories() -> Vec<FileId> {
    let mut all = vec![FileId::ROOT];
    all.extend(NAMES.map(|name| FileId::of_directory(FileId::ROOT, name, 0)));
    all
}

fn files() -> Vec<FileId> {
    (1..5).map(|byte| FileId::of_file([byte; 16])).collect()
}

fn links() -> Vec<LinkId> {
    let of_files = (1..5).map(|byte| LinkId::of_file([byte; 16]));
    of_files.chain(directories().into_iter().skip(1).map(LinkId::of_directory)).collect()
}

pub(crate) fn op((_, _, what, one, other): Choice) -> Op {
    let pick = |number: u8, len: usize| usize::from(number) % len;
    let (all, names) = (directories(), NAMES.len());
    let parent = all[pick(one, all.len())];
    let name = Name::try_from(NAMES[pick(other, names)]).unwrap();
    let (file, link) = (files()[pick(one, 4)], links()[pick(one, 4)]);
    let any_link = links()[pick(other, links().len())];
    let (mode, modified) = (u32::from(other), Stamp { seconds: one.into(), nanos: 1 });
    match what % 7 {
        0 => {
            let (parent, file) =
                (FileId::ROOT, FileId::of_directory(FileId::ROOT, name.bytes(), 0));
            let (link, kind) = (LinkId::of_directory(file), Kind::Directory);
            Op::Create { link, file, parent, name, kind, mode, modified, former: 0 }
        }
        1 => Op::Create { link, file, parent, name, kind: Kind::File, mode, modified, former: 0 },
        2 => Op::Move { link: any_link, parent, name },
        3 => Op::Delete { link: any_link },
        4 => {
            let (address, key) = (Address([other; 32]), [one; 32]);
            let chunk = ChunkRef { address, key, plain_len: 9, from: 0, len: 9 };
            let content = Content::Extents(vec![Extent { offset: 1, chunk }]);
            Op::Write { file, size: 30, content, base: Vec::new(), fence: None }
        }
        5 => {
            let value = Some(vec![other; 3]);
            let attribute = Attribute::Extended { name: b"user.x".to_vec(), value };
            Op::SetAttr { file, attribute }
        }
        _ => Op::SetAttr { file, attribute: Attribute::Mode(mode) },
    }
}

/// Everything that can be asked.
fn told<T: Look>(tables: &T) -> String
where
    T::Error: std::fmt::Debug,
{
    let mut told = String::new();
    let mut add = |what: &dyn std::fmt::Debug| told.push_str(&format!("{what:?}\n"));
    for directory in directories() {
        let all = tables.names(directory, None, 100).unwrap();
        let mut one_by_one = Vec::new();
        while let [one] =
            &tables.names(directory, one_by_one.last().map(|(n, _)| n), 1).unwrap()[..]
        {
            one_by_one.push(one.clone());
        }
        assert_eq!(all, one_by_one);
        let names: BTreeSet<&Name> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), all.len());
        for (name, links) in &all {
            assert_eq!(tables.named(directory, name).unwrap(), *links);
        }
        add(&all);
    }
    for file in files().into_iter().chain(directories()) {
        add(&tables.file(file).unwrap());
        add(&tables.touches(Touched::File(file)).unwrap());
    }
    for link in links() {
        add(&tables.link(link).unwrap());
        add(&tables.touches(Touched::Link(link)).unwrap());
    }
    for feed in [1, 2] {
        for number in 0..20 {
            let entry = EntryId { feed: FeedId([feed; 32]), number };
            add(&tables.seen(entry).unwrap());
            add(&tables.version(OpId { entry, place: 0 }).unwrap());
        }
    }
    let moves = tables.moves_from(Rank::FIRST).unwrap();
    for (rank, _) in &moves {
        add(&tables.moves_from(*rank).unwrap());
    }
    add(&tables.sum().unwrap());
    told
}

#[test]
fn the_tables_of_the_index_are_those_in_memory() {
    law::hold(4, &proptest::collection::vec(any::<Choice>(), 0..40), |choices| {
        let index = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let writing = index.begin_write().unwrap();
        let mut in_index = State::new(Shelf(writing.open_table(TREE).unwrap()));
        let mut in_memory = State::<Memory>::default();
        let mut in_overlay = State::new(Overlay::new(Memory::default()));
        let mut seen = Seen::new();
        for (lamport, choice) in (1..).zip(choices) {
            let feed = FeedId([1 + choice.0 % 2; 32]);
            let id = EntryId { feed, number: seen.count(&feed) };
            let own: Seen = [(feed, id.number)].into_iter().collect();
            let had_seen = if choice.1 { seen.clone() } else { own };
            let ops = [op(choice)];
            let batch = Batch { id, lamport, seen: &had_seen, ops: &ops };
            in_memory.apply(batch).unwrap();
            in_index.apply(batch).unwrap();
            in_overlay.note(batch).unwrap();
            if lamport % 5 == 0 {
                in_overlay = State::new(Overlay::new(in_overlay.into_tables().settle().unwrap()));
            }
            prop_assert_eq!(in_index.root().unwrap(), in_memory.root().unwrap());
            seen.see(id);
        }
        prop_assert_eq!(told(in_index.tables()), told(in_memory.tables()));
        prop_assert_eq!(told(in_overlay.tables()), told(in_memory.tables()));
        prop_assert_eq!(&in_overlay.into_tables().settle().unwrap(), in_memory.tables());
        drop(in_index);
        writing.commit().unwrap();
        let reading = index.begin_read().unwrap();
        let table = reading.open_table(TREE).unwrap();
        prop_assert_eq!(told(&Shelf(table)), told(in_memory.tables()));
        Ok(())
    });
}

#[test]
fn what_was_not_written_here_is_named_and_not_read() {
    let index = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    let writing = index.begin_write().unwrap();
    let mut shelf = Shelf(writing.open_table(TREE).unwrap());
    let (file, link) = (files()[0], links()[0]);
    let name = Name::try_from(&b"a"[..]).unwrap();
    for key in [
        key(b"f", &[file.bytes()]),
        key(b"l", &[link.bytes()]),
        key(b"n", &[FileId::ROOT.bytes(), b"x"]),
        key(b"n", &[FileId::ROOT.bytes(), name.bytes(), &[0], b"short"]),
        key(b"t", &[&[0], file.bytes(), b"short"]),
        key(b"m", &[b"short"]),
        b"r".to_vec(),
    ] {
        shelf.0.insert(&key[..], &b"\xff\xff"[..]).unwrap();
    }
    let is_damage = |outcome: Result<(), ShelfError>| matches!(outcome, Err(ShelfError::Damaged));
    assert!(is_damage(shelf.file(file).map(drop)));
    assert!(is_damage(shelf.link(link).map(drop)));
    assert!(is_damage(shelf.names(FileId::ROOT, None, 9).map(drop)));
    assert!(is_damage(shelf.named(FileId::ROOT, &name).map(drop)));
    assert!(is_damage(shelf.touches(Touched::File(file)).map(drop)));
    assert!(is_damage(shelf.moves_from(Rank::FIRST).map(drop)));
    assert!(is_damage(shelf.sum().map(drop)));
}
