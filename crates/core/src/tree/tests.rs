//! The laws of a tree: whoever knows the same has the same, and nothing is lost (N13).
//!
//! A few peers do things at random to what each of them sees, and tell each other now and then. In
//! whatever order their entries are applied, the state is the one that a naive reading of the whole
//! set gives ([`naive`]).

mod aside;
mod lineage;
mod matrix;
mod moves;
mod naive;
mod past;
mod script;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::content::Body;
use super::id::{Address, EntryId, FeedId, FileId, LinkId, OpId};
use super::op::{
    Attribute, ChunkRef, Content, Extent, INLINE_BYTES_MAX, Kind, Name, Op, Span, Stamp,
};
use super::seen::Seen;
use super::shown::{Directory, What};
use super::state::{ApplyError, Batch, State};
use super::tables::{Look, Memory};

/// What a peer does; numbers choose among what it sees.
#[derive(Clone, Debug)]
enum Act {
    Mkdir(usize, usize),
    Create(usize, usize),
    Symlink(usize, usize),
    Link(usize, usize, usize),
    Write(usize, u8),
    Patch(usize, u8),
    /// Writes something long in parts, and does not always come to its end.
    Long(usize, u8),
    Move(usize, usize, usize),
    Delete(usize),
    Chmod(usize, u32),
    Touch(usize, i64),
    Mark(usize, u8),
    Resolve(usize),
    /// Hears all that another knows.
    Hear(usize),
}

const PEERS: usize = 3;
const NAMES: [&[u8]; 5] = [b"a", b"b", b"a.txt", b"d", b"a.db"];

fn act() -> impl Strategy<Value = Act> {
    let n = 0..64_usize;
    prop_oneof![
        4 => (n.clone(), n.clone()).prop_map(|(d, name)| Act::Mkdir(d, name)),
        4 => (n.clone(), n.clone()).prop_map(|(d, name)| Act::Create(d, name)),
        1 => (n.clone(), n.clone()).prop_map(|(d, name)| Act::Symlink(d, name)),
        2 => (n.clone(), n.clone(), n.clone()).prop_map(|(f, d, name)| Act::Link(f, d, name)),
        4 => (n.clone(), any::<u8>()).prop_map(|(f, byte)| Act::Write(f, byte)),
        2 => (n.clone(), any::<u8>()).prop_map(|(f, byte)| Act::Patch(f, byte)),
        2 => (n.clone(), any::<u8>()).prop_map(|(f, byte)| Act::Long(f, byte)),
        6 => (n.clone(), n.clone(), n.clone()).prop_map(|(l, d, name)| Act::Move(l, d, name)),
        4 => n.clone().prop_map(Act::Delete),
        1 => (n.clone(), 0..0o1000_u32).prop_map(|(f, mode)| Act::Chmod(f, mode)),
        1 => (n.clone(), 0..9_i64).prop_map(|(f, at)| Act::Touch(f, at)),
        1 => (n.clone(), any::<u8>()).prop_map(|(f, byte)| Act::Mark(f, byte)),
        1 => n.clone().prop_map(Act::Resolve),
        6 => (0..PEERS).prop_map(Act::Hear),
    ]
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub id: EntryId,
    pub lamport: u64,
    pub seen: Seen,
    pub ops: Vec<Op>,
}

impl Entry {
    fn batch(&self) -> Batch<'_> {
        Batch { id: self.id, lamport: self.lamport, seen: &self.seen, ops: &self.ops }
    }
}

struct Peer {
    feed: FeedId,
    state: State<Memory>,
    seen: Seen,
    lamport: u64,
}

struct World {
    peers: Vec<Peer>,
    entries: Vec<Entry>,
    made: u8,
}

/// What can be reached from the root.
#[derive(Default)]
struct Sight {
    directories: Vec<Directory>,
    links: Vec<(LinkId, FileId)>,
    beside: Vec<OpId>,
}

fn label(feed: &FeedId) -> String {
    feed.0[0].to_string()
}

fn look(state: &State<Memory>) -> Sight {
    let mut sight = Sight::default();
    let mut met = vec![Directory::root()];
    let mut at = 0;
    while let Some(directory) = met.get(at).cloned() {
        at += 1;
        if !directory.is_aside() {
            sight.directories.push(directory.clone());
        }
        let list = state.list(&directory, &label).unwrap();
        let names: BTreeSet<&Name> = list.iter().map(|shown| &shown.name).collect();
        assert_eq!(names.len(), list.len(), "each has a name of its own: {list:?}");
        for shown in &list {
            let found = state.find(&directory, &shown.name, &label).unwrap();
            assert_eq!(found.as_ref(), Some(&shown.what), "what is listed is found");
            match &shown.what {
                What::Directory(below) => {
                    // Nobody made those that show versions.
                    let made = below.all().iter().filter(|_| !below.is_aside());
                    sight.links.extend(made.map(|d| (LinkId::of_directory(*d), *d)));
                    met.push(below.clone());
                }
                What::File { link, file } => sight.links.push((*link, *file)),
                What::Beside { version, .. } => sight.beside.push(*version),
            }
        }
    }
    sight
}

fn pick<T: Clone>(all: &[T], number: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[number % all.len()].clone())
}

fn name(number: usize) -> Name {
    Name::try_from(NAMES[number % NAMES.len()]).unwrap()
}

fn extent(offset: u64, byte: u8, len: u32) -> Extent {
    let chunk =
        ChunkRef { address: Address([byte; 32]), key: [byte; 32], plain_len: 64, from: 0, len };
    Extent { offset, chunk }
}

impl World {
    fn new() -> World {
        let peer = |number: usize| Peer {
            feed: FeedId([u8::try_from(number).unwrap() + 1; 32]),
            state: State::default(),
            seen: Seen::new(),
            lamport: 0,
        };
        World { peers: (0..PEERS).map(peer).collect(), entries: Vec::new(), made: 0 }
    }

    fn random(&mut self) -> [u8; 16] {
        self.made += 1;
        [self.made; 16].map(|byte| byte & 0x7f)
    }

    fn act(&mut self, who: usize, act: &Act) {
        if let Act::Hear(other) = act {
            return self.hear(who, *other);
        }
        if let Act::Long(number, byte) = act {
            return self.write_long(who, *number, *byte);
        }
        let Some(ops) = self.ops(who, act) else { return };
        self.commit(who, ops);
    }

    /// Nobody sees a part, and the last is the whole.
    fn write_long(&mut self, who: usize, number: usize, byte: u8) {
        let before = look(&self.peers[who].state).links;
        let files = before.iter().map(|(_, file)| *file).filter(|file| !file.is_directory());
        let Some(file) = pick(&files.collect::<Vec<_>>(), number) else { return };
        let record = self.peers[who].state.file(file).unwrap();
        let parts =
            [0, 20, 40].map(|at| extent(at, byte.wrapping_add(u8::try_from(at).unwrap()), 20));
        let nobodys = FileId::of_file(self.random());
        let mut of: Option<OpId> = None;
        for (at, part) in parts.iter().enumerate() {
            let (is_last, extents) = (at == parts.len() - 1, vec![*part]);
            let content = match of {
                None => Content::Extents(extents),
                Some(of) => Content::Patch { of, zeros: Vec::new(), extents },
            };
            let heads = record.heads.keys().filter(|_| is_last).copied();
            let base = heads.chain(of).collect();
            let file = if is_last { file } else { nobodys };
            if is_last && byte.is_multiple_of(4) {
                return;
            }
            self.commit(who, vec![Op::Write { file, size: 60, content, base, fence: None }]);
            let entry = self.entries.last().unwrap().id;
            of = Some(OpId { entry, place: 0 });
            if !is_last {
                let state = &self.peers[who].state;
                assert_eq!(
                    (look(state).links, state.file(file).unwrap().made),
                    (before.clone(), None)
                );
            }
        }
        let state = &self.peers[who].state;
        let heads = state.file(file).unwrap().heads;
        assert_eq!(heads.keys().copied().collect::<Vec<_>>(), [of.unwrap()]);
        assert_eq!(state.body(of.unwrap()).unwrap(), Some(Body::Extents(parts.to_vec())));
    }

    fn commit(&mut self, who: usize, ops: Vec<Op>) {
        let peer = &mut self.peers[who];
        let id = EntryId { feed: peer.feed, number: peer.seen.count(&peer.feed) };
        peer.lamport += 1;
        let entry = Entry { id, lamport: peer.lamport, seen: peer.seen.clone(), ops };
        peer.state.apply(entry.batch()).unwrap();
        peer.seen.see(id);
        self.entries.push(entry);
    }

    fn ops(&mut self, who: usize, act: &Act) -> Option<Vec<Op>> {
        let random = self.random();
        let state = &self.peers[who].state;
        let sight = look(state);
        let directory = |number| pick(&sight.directories, number).map(|d| d.first());
        let files: Vec<FileId> =
            sight.links.iter().map(|(_, file)| *file).filter(|f| !f.is_directory()).collect();
        let all: Vec<FileId> = sight.links.iter().map(|(_, file)| *file).collect();
        let heads = |file: FileId| {
            let heads = state.tables().file(file).unwrap().unwrap().heads;
            heads.into_keys().collect::<Vec<OpId>>()
        };
        let create = |link, file, parent, name, kind, former| Op::Create {
            link,
            file,
            parent,
            name,
            kind,
            mode: 0o644,
            modified: Stamp::default(),
            former,
        };
        let op = match *act {
            Act::Mkdir(d, n) => {
                let parent = directory(d)?;
                let (file, former) = state.id_of_new_directory(parent, &name(n)).unwrap();
                let link = LinkId::of_directory(file);
                create(link, file, parent, name(n), Kind::Directory, former)
            }
            Act::Create(d, n) | Act::Symlink(d, n) => {
                let is_file = matches!(act, Act::Create(..));
                let kind = if is_file { Kind::File } else { Kind::Symlink(b"to".to_vec()) };
                let (link, file) = (LinkId::of_file(random), FileId::of_file(random));
                create(link, file, directory(d)?, name(n), kind, 0)
            }
            Act::Link(f, d, n) => {
                let (link, file) = (LinkId::of_file(random), pick(&files, f)?);
                Op::Link { link, file, parent: directory(d)?, name: name(n) }
            }
            Act::Write(f, byte) => {
                let file = pick(&files, f)?;
                let content = Content::Extents(vec![extent(0, byte, 40)]);
                Op::Write { file, size: 64, content, base: heads(file), fence: None }
            }
            Act::Patch(f, byte) => {
                let file = pick(&files, f)?;
                let base = heads(file);
                let (zeros, extents) =
                    (vec![Span { offset: 9, len: 3 }], vec![extent(20, byte, 5)]);
                let content = Content::Patch { of: *base.first()?, zeros, extents };
                // Who opened one of several versions knows of no other.
                let base = base[..1 + usize::from(byte) % base.len()].to_vec();
                Op::Write { file, size: 30 + u64::from(byte), content, base, fence: None }
            }
            Act::Move(l, d, n) => {
                let (link, _) = pick(&sight.links, l)?;
                Op::Move { link, parent: directory(d)?, name: name(n) }
            }
            Act::Delete(l) => Op::Delete { link: pick(&sight.links, l)?.0 },
            Act::Chmod(f, mode) => {
                Op::SetAttr { file: pick(&all, f)?, attribute: Attribute::Mode(mode) }
            }
            Act::Touch(f, seconds) => {
                let attribute = Attribute::Modified(Stamp { seconds, nanos: 0 });
                Op::SetAttr { file: pick(&all, f)?, attribute }
            }
            Act::Mark(f, byte) => {
                let value = (byte > 60).then(|| vec![byte]);
                let attribute = Attribute::Extended { name: b"user.x".to_vec(), value };
                Op::SetAttr { file: pick(&all, f)?, attribute }
            }
            Act::Resolve(f) => {
                let file = pick(&files, f)?;
                let given_up = heads(file).split_off(1.min(heads(file).len()));
                Op::Resolve { file, given_up }
            }
            Act::Long(..) | Act::Hear(_) => return None,
        };
        Some(vec![op])
    }

    fn hear(&mut self, who: usize, other: usize) {
        let theirs = self.peers[other].seen.clone();
        let peer = &mut self.peers[who];
        for entry in self.entries.iter().filter(|entry| theirs.covers(entry.id)) {
            if !peer.seen.covers(entry.id) {
                peer.state.apply(entry.batch()).unwrap();
                peer.seen.see(entry.id);
                peer.lamport = peer.lamport.max(entry.lamport);
            }
        }
    }

    fn all_hear_all(&mut self) {
        for (who, other) in (0..PEERS).flat_map(|w| (0..PEERS).map(move |o| (w, o))) {
            self.hear(who, other);
        }
        for who in 0..PEERS {
            self.hear(who, PEERS - 1);
        }
    }

    /// Applies everything in another order: numbers choose among what may be next.
    fn reordered(&self, choices: &[usize]) -> State<Memory> {
        let mut left: Vec<&Entry> = self.entries.iter().collect();
        let (mut state, mut seen) = (State::default(), Seen::new());
        let mut choices = choices.iter().cycle();
        while !left.is_empty() {
            let is_next = |entry: &&Entry| {
                seen.includes(&entry.seen) && seen.count(&entry.id.feed) == entry.id.number
            };
            let ready: Vec<usize> = (0..left.len()).filter(|at| is_next(&left[*at])).collect();
            let entry = left.remove(ready[choices.next().unwrap() % ready.len()]);
            state.apply(entry.batch()).unwrap();
            seen.see(entry.id);
        }
        state
    }
}

fn play(acts: &[(usize, Act)]) -> World {
    let mut world = World::new();
    acts.iter().for_each(|(who, act)| world.act(*who, act));
    world.all_hear_all();
    world
}

fn acts(most: usize) -> impl Strategy<Value = Vec<(usize, Act)>> {
    proptest::collection::vec((0..PEERS, act()), 0..most)
}

proptest! {
    #[test]
    fn n13_who_knows_the_same_has_the_same_and_nothing_is_lost(
        acts in acts(45),
        choices in proptest::collection::vec(0..97_usize, 1..30),
    ) {
        let world = play(&acts);
        let state = &world.peers[0].state;
        for other in &world.peers[1..] {
            prop_assert_eq!(&other.state, state);
            prop_assert_eq!(other.state.root(), state.root());
        }
        let reordered = world.reordered(&choices);
        prop_assert_eq!(&reordered, state);
        let naive = naive::Tree::of(&world.entries);
        naive.check(state);
        let sight = look(state);
        naive.check_sight(&sight.links, &sight.beside);
    }
}

#[test]
fn what_names_a_version_that_its_author_had_not_seen_is_refused() {
    let entry = EntryId { feed: FeedId([1; 32]), number: 3 };
    let unseen = OpId { entry: EntryId { feed: FeedId([2; 32]), number: 0 }, place: 0 };
    let later = OpId { entry, place: 0 };
    for named in [unseen, later] {
        let op = Op::Resolve { file: FileId::of_file([1; 16]), given_up: vec![named] };
        let batch = Batch { id: entry, lamport: 1, seen: &Seen::new(), ops: &[op] };
        let refused = State::<Memory>::default().apply(batch);
        assert!(matches!(refused, Err(ApplyError::Fault(_))), "{refused:?}");
    }
}

#[test]
fn whoever_means_harm_is_refused_by_name() {
    let (file, link) = (FileId::of_file([1; 16]), LinkId::of_file([1; 16]));
    let directory = FileId::of_directory(FileId::ROOT, b"d", 0);
    let name = Name::try_from(&b"e"[..]).unwrap();
    let create = |file, link, parent, kind, mode, former| Op::Create {
        link,
        file,
        parent,
        name: name.clone(),
        kind,
        mode,
        modified: Stamp::default(),
        former,
    };
    let write = |file, size, content| Op::Write { file, size, content, base: vec![], fence: None };
    let long = vec![0; INLINE_BYTES_MAX + 1];
    let part = |plain_len, from, len| {
        let mut one = extent(0, 1, len);
        (one.chunk.plain_len, one.chunk.from) = (plain_len, from);
        Content::Extents(vec![one])
    };
    let of_dir = LinkId::of_directory;
    let wrong = [
        create(directory, of_dir(directory), FileId::ROOT, Kind::Directory, 0o755, 0),
        create(FileId::ROOT, of_dir(FileId::ROOT), FileId::ROOT, Kind::Directory, 0o755, 0),
        create(directory, link, FileId::ROOT, Kind::File, 0o644, 0),
        create(file, of_dir(directory), FileId::ROOT, Kind::File, 0o644, 0),
        create(file, link, file, Kind::File, 0o644, 0),
        create(file, link, FileId::ROOT, Kind::File, 0o1_0000, 0),
        create(file, link, FileId::ROOT, Kind::File, 0o644, 1),
        create(file, link, FileId::ROOT, Kind::Symlink(vec![]), 0o777, 0),
        create(file, link, FileId::ROOT, Kind::Symlink(vec![b'x'; 4096]), 0o777, 0),
        Op::Link { link, file: directory, parent: FileId::ROOT, name: name.clone() },
        Op::Move { link, parent: file, name: name.clone() },
        write(directory, 0, Content::EMPTY),
        write(file, 1 << 63, Content::Extents(vec![])),
        write(file, 5, Content::Inline(b"abc".to_vec())),
        write(file, long.len() as u64, Content::Inline(long)),
        write(file, 64, part(10, 4, 7)),
        write(file, 64, part(u32::MAX, u32::MAX, 2)),
        write(file, 64, part(10, 4, 0)),
        write(file, 3, part(10, 0, 4)),
        write(file, 64, Content::Extents(vec![extent(0, 1, 9), extent(8, 2, 9)])),
        write(file, 64, Content::Extents(vec![extent(u64::MAX, 1, 9)])),
    ];
    for op in wrong {
        assert!(op.check().is_err(), "{op:?}");
    }
}

/// A patch of a version that somebody else replaced meanwhile is still a patch of that version.
#[test]
fn a_patch_of_what_was_replaced_elsewhere_is_as_its_author_saw_it() {
    let mut world = World::new();
    world.act(0, &Act::Create(0, 0));
    world.act(0, &Act::Write(0, 7));
    world.hear(1, 0);
    world.act(0, &Act::Write(0, 8));
    world.act(1, &Act::Patch(0, 0));
    world.all_hear_all();
    let state = &world.peers[2].state;
    let file = look(state).links[0].1;
    let heads = state.tables().file(file).unwrap().unwrap().heads;
    assert_eq!(heads.len(), 2);
    let (patched, _) = heads.iter().find(|(_, version)| version.size == 30).unwrap();
    let Some(Body::Extents(extents)) = state.body(*patched).unwrap() else { panic!("{patched:?}") };
    let told: Vec<_> =
        extents.iter().map(|e| (e.offset, e.chunk.len, e.chunk.address.0[0])).collect();
    assert_eq!(told, [(0, 9, 7), (12, 8, 7), (20, 5, 0), (25, 5, 7)]);
}

/// A chain of directories that goes and comes as a whole is no deeper than memory.
#[test]
fn a_deep_tree_that_was_deleted_comes_back_for_what_is_put_into_it() {
    const DEEP: usize = 5_000;
    let mut state = State::<Memory>::default();
    let mut parent = FileId::ROOT;
    let mut made = Vec::new();
    for _ in 0..DEEP {
        let (file, former) = state.id_of_new_directory(parent, &name(0)).unwrap();
        let link = LinkId::of_directory(file);
        let (kind, modified) = (Kind::Directory, Stamp::default());
        made.push(Op::Create {
            link,
            file,
            parent,
            name: name(0),
            kind,
            mode: 0o755,
            modified,
            former,
        });
        parent = file;
    }
    let gone = made.iter().rev().map(|op| match op {
        Op::Create { link, .. } => Op::Delete { link: *link },
        _ => unreachable!(),
    });
    let gone: Vec<Op> = gone.collect();
    let (link, file) = (LinkId::of_file([7; 16]), FileId::of_file([7; 16]));
    let (kind, modified) = (Kind::File, Stamp::default());
    let put =
        Op::Create { link, file, parent, name: name(1), kind, mode: 0o644, modified, former: 0 };
    let ids = [[1; 32], [1; 32], [2; 32]].map(FeedId);
    let first = EntryId { feed: ids[0], number: 0 };
    let seen: Seen = [(ids[0], 1)].into_iter().collect();
    let of =
        |feed, number, seen, ops| Entry { id: EntryId { feed, number }, lamport: 9, seen, ops };
    let make = Entry { id: first, lamport: 1, seen: Seen::new(), ops: made };
    state.apply(make.batch()).unwrap();
    state.apply(of(ids[1], 1, seen.clone(), gone).batch()).unwrap();
    assert!(state.list(&Directory::root(), &label).unwrap().is_empty());
    state.apply(of(ids[2], 0, seen, vec![put]).batch()).unwrap();
    assert_eq!(state.list(&Directory::root(), &label).unwrap().len(), 1);
}
