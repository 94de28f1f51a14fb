//! What was is found again, told, and brought back.
//!
//! Two copies of a bucket are written to, and hear of each other. What each saw after each entry is kept, and
//! is what the version is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use gate_core::tree::content::Body;
use gate_core::tree::diff::Node;
use gate_core::tree::id::{FeedId, LinkId};
use gate_core::tree::op::{Attribute, Content, Kind as NodeKind, Stamp};
use gate_core::tree::shown::Directory;
use gate_core::tree::tables::Look;
use proptest::prelude::*;

use super::*;
use crate::bucket::Tree;
use crate::identity::Identity;
use crate::law;

/// Each with what it holds, whichever version that is.
type Model = BTreeMap<Vec<Name>, (Node, Body)>;

#[derive(Clone, Debug)]
enum Act {
    Make(usize, usize, bool),
    Write(usize, u8),
    Move(usize, usize, usize),
    Remove(usize),
    Chmod(usize, u32),
    Mark(usize, u8),
    /// Hears of all that the other knows.
    Hear,
    /// From there on versions are made of it.
    Checkpoint,
}

struct World {
    home: tempfile::TempDir,
    device: Identity,
    buckets: [Option<Bucket>; 2],
    at_ms: u64,
}

fn label(feed: &FeedId) -> String {
    format!("{:02x}{:02x}", feed.0[0], feed.0[1])
}

fn name(text: &str) -> Name {
    Name::try_from(text.as_bytes()).unwrap()
}

fn path(text: &str) -> Vec<Name> {
    text.split('/').filter(|part| !part.is_empty()).map(name).collect()
}

fn everything<T: Look>(state: &State<T>) -> Result<Vec<(Vec<Name>, What)>, T::Error> {
    let mut all = vec![(Vec::new(), What::Directory(Directory::root()))];
    let mut next = 0;
    while let Some((path, what)) = all.get(next).cloned() {
        next += 1;
        let What::Directory(directory) = what else { continue };
        for shown in state.list(&directory, &label)? {
            all.push((path.iter().cloned().chain([shown.name]).collect(), shown.what));
        }
    }
    Ok(all)
}

fn model<T: Look>(state: &State<T>) -> Result<Model, T::Error> {
    let thing = |(path, what)| {
        let mut node = state.node(&what, &label)?;
        let body = state.body_of(&node.held)?;
        node.held.version = None;
        Ok((path, (node, body)))
    };
    everything(state)?.into_iter().map(thing).collect()
}

/// Whether several things came to one name, or one has several versions.
fn is_in_doubt(model: &Model) -> bool {
    let names = model.keys().filter_map(|path| path.last());
    names.into_iter().any(|name| name.bytes().iter().any(|byte| matches!(byte, b'~' | b'@')))
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let device = Identity::random();
        let uuid = Bucket::create(home.path(), &device, 1).unwrap();
        fs::rename(home.path().join(uuid.to_string()), home.path().join("0")).unwrap();
        fs::create_dir(home.path().join("1")).unwrap();
        for file in ["genesis", "members", "entries"] {
            fs::copy(home.path().join("0").join(file), home.path().join("1").join(file)).unwrap();
        }
        let mut world = World { home, device, buckets: [None, None], at_ms: 1000 };
        (0..2).for_each(|which| world.open(which));
        world
    }

    fn dir(&self, which: usize) -> PathBuf {
        self.home.path().join(which.to_string())
    }

    fn open(&mut self, which: usize) {
        self.buckets[which] = Some(Bucket::open(&self.dir(which), &self.device).unwrap());
    }

    fn bucket(&mut self, which: usize) -> &mut Bucket {
        self.buckets[which].as_mut().unwrap()
    }

    fn commit(&mut self, which: usize, ops: &[Op]) -> EntryId {
        self.at_ms += 10;
        let at_ms = self.at_ms;
        self.bucket(which).commit(ops, Vec::new(), at_ms).unwrap()
    }

    fn model(&mut self, which: usize) -> Model {
        self.bucket(which).read(model).unwrap()
    }

    /// Lets one have all entries of the other, as if they had come to it.
    fn hear(&mut self, which: usize) {
        let from = self.bucket(1 - which);
        let all: Vec<_> = from.known.iter().map(|known| from.decode(*known).unwrap()).collect();
        let to = self.bucket(which);
        let frontier = to.frontier();
        for entry in all.into_iter().filter(|entry| !frontier.covers(entry.id())) {
            let entry = entry.verified_before();
            to.feeds.accept(&entry, &to.members, |_| None).unwrap();
            let offset = to.entries.append(&[entry.bytes()]).unwrap()[0];
            let known = Known { id: entry.id(), offset };
            to.known.push(known);
            to.behind.push(known);
        }
    }

    /// Returns what an act is in the tree as it is.
    fn ops(&mut self, which: usize, act: &Act) -> Vec<Op> {
        let all = self.bucket(which).read(everything).unwrap();
        let directories: Vec<FileId> = all
            .iter()
            .filter_map(|(_, what)| match what {
                What::Directory(directory) => Some(directory.first()),
                What::File { .. } | What::Beside { .. } => None,
            })
            .collect();
        let things: Vec<(LinkId, FileId)> = all
            .iter()
            .skip(1)
            .filter_map(|(_, what)| match what {
                What::Directory(d) => Some((LinkId::of_directory(d.first()), d.first())),
                What::File { link, file } => Some((*link, *file)),
                What::Beside { .. } => None,
            })
            .collect();
        let thing = |number: usize| (!things.is_empty()).then(|| things[number % things.len()]);
        let free = |parent: FileId, number: usize, tree: &Tree| {
            (number..)
                .map(|number| name(&format!("n{}", number % 100)))
                .find(|name| tree.tables().named(parent, name).unwrap().is_empty())
        };
        let place = |bucket: &mut Bucket, directory: usize, number: usize| {
            let parent = directories[directory % directories.len()];
            (parent, bucket.read(|tree| Ok(free(parent, number, tree).unwrap())).unwrap())
        };
        let bucket = self.buckets[which].as_mut().unwrap();
        let op = match *act {
            Act::Make(directory, number, is_file) => {
                let (parent, name) = place(bucket, directory, number);
                let (link, file, kind, former) = if is_file {
                    let (link, file) = (random::bytes(), random::bytes());
                    (LinkId::of_file(link), FileId::of_file(file), NodeKind::File, 0)
                } else {
                    let (file, former) =
                        bucket.read(|tree| tree.id_of_new_directory(parent, &name)).unwrap();
                    (LinkId::of_directory(file), file, NodeKind::Directory, former)
                };
                let (mode, modified) = (0o644, Stamp::default());
                Some(Op::Create { link, file, parent, name, kind, mode, modified, former })
            }
            Act::Write(number, byte) => {
                thing(number).map(|(_, file)| (file, byte)).and_then(write(bucket))
            }
            Act::Move(number, directory, to) => thing(number).map(|(link, _)| {
                let (parent, name) = place(bucket, directory, to);
                Op::Move { link, parent, name }
            }),
            Act::Remove(number) => thing(number).map(|(link, _)| Op::Delete { link }),
            Act::Chmod(number, mode) => thing(number)
                .map(|(_, file)| Op::SetAttr { file, attribute: Attribute::Mode(mode) }),
            Act::Mark(number, byte) => thing(number).map(|(_, file)| {
                let value = (byte > 60).then(|| vec![byte]);
                let attribute = Attribute::Extended { name: b"user.x".to_vec(), value };
                Op::SetAttr { file, attribute }
            }),
            Act::Hear | Act::Checkpoint => None,
        };
        op.into_iter().collect()
    }
}

/// Returns what writes a byte into a file, if it is one.
fn write(bucket: &mut Bucket) -> impl FnOnce((FileId, u8)) -> Option<Op> + '_ {
    |(file, byte)| {
        let heads = bucket.read(|tree| {
            Ok(tree.tables().file(file)?.map(|record| record.heads.into_keys().collect()))
        });
        let base = heads.unwrap().unwrap_or_default();
        let content = Content::Inline(vec![byte; 3]);
        (!file.is_directory()).then_some(Op::Write { file, size: 3, content, base, fence: None })
    }
}

fn act() -> impl Strategy<Value = Act> {
    let n = 0..64_usize;
    prop_oneof![
        6 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(d, n, f)| Act::Make(d, n, f)),
        4 => (n.clone(), any::<u8>()).prop_map(|(f, byte)| Act::Write(f, byte)),
        4 => (n.clone(), n.clone(), n.clone()).prop_map(|(l, d, n)| Act::Move(l, d, n)),
        3 => n.clone().prop_map(Act::Remove),
        1 => (n.clone(), 0..0o1000_u32).prop_map(|(f, mode)| Act::Chmod(f, mode)),
        1 => (n, any::<u8>()).prop_map(|(f, byte)| Act::Mark(f, byte)),
        2 => Just(Act::Hear),
        1 => Just(Act::Checkpoint),
    ]
}

#[test]
fn each_version_is_as_it_was_when_it_was_made_and_can_be_had_again() {
    let acts = prop::collection::vec((0..2_usize, act()), 1..16);
    // Each makes two buckets.
    law::hold(40, &(acts, 1..5_usize, any::<usize>()), |(acts, most, which)| {
        let mut world = World::new();
        let mut models = BTreeMap::new();
        for (who, act) in &acts {
            if matches!(act, Act::Hear) {
                world.hear(*who);
                continue;
            }
            if matches!(act, Act::Checkpoint) {
                world.bucket(*who).checkpoint(1).unwrap();
                continue;
            }
            let ops = world.ops(*who, act);
            if !ops.is_empty() {
                let before = world.model(*who);
                let id = world.commit(*who, &ops);
                models.insert(id, (before, world.model(*who)));
            }
        }
        world.hear(0);
        // The history is listed whole, once, in order.
        let mut told: Vec<Told> = Vec::new();
        loop {
            let after = told.last().map(|told| told.id);
            let asked = Asked { after, most, path: None };
            let some = world.bucket(0).told(&asked, &label).unwrap();
            prop_assert!(some.len() <= most);
            if some.is_empty() {
                break;
            }
            told.extend(some);
        }
        prop_assert!(told.is_sorted_by_key(|one| std::cmp::Reverse((one.lamport, one.id.feed))));
        let listed: BTreeSet<EntryId> = told.iter().map(|one| one.id).collect();
        prop_assert_eq!(listed.len(), told.len());
        prop_assert!(listed.iter().eq(models.keys()));
        for (number, one) in told.iter().enumerate() {
            let bucket = world.bucket(0);
            let version = bucket.version(&Wanted::Back(number as u64)).unwrap();
            prop_assert_eq!(version.entry, Some(one.id));
            let hash = one.hash.to_string().parse().unwrap();
            prop_assert_eq!(&bucket.version(&hash).unwrap(), &version);
            let Ok(then) = model(&bucket.at(&version).unwrap());
            prop_assert_eq!(&then, &models[&one.id].1, "{:?}", one);
        }
        let Some(newest) = told.first() else { return Ok(()) };
        let now = world.model(0);
        // Whoever saw all before it undoes it.
        let version = world.bucket(0).version_of(newest.id).unwrap();
        let is_plain = !is_in_doubt(&now) && !is_in_doubt(&models[&newest.id].0);
        if world.bucket(0).is_newest(&version) && is_plain {
            let ops = world.bucket(0).undoing(newest.id).unwrap();
            world.commit(0, &ops);
            prop_assert_eq!(&world.model(0), &models[&newest.id].0);
        }
        let back = &told[which % told.len()];
        let version = world.bucket(0).version_of(back.id).unwrap();
        let ops = world.bucket(0).restoring(&[], &version, &label).unwrap();
        for part in parts(ops) {
            world.commit(0, &part);
        }
        prop_assert_eq!(&world.model(0), &models[&back.id].1);
        Ok(())
    });
}

/// Makes a file, and what is in it, in one entry.
fn make(parent: FileId, text: &str, bytes: &[u8]) -> (LinkId, FileId, Vec<Op>) {
    let (link, file) = (LinkId::of_file(random::bytes()), FileId::of_file(random::bytes()));
    let (kind, mode, modified) = (NodeKind::File, 0o644, Stamp::default());
    let name = name(text);
    let create = Op::Create { link, file, parent, name, kind, mode, modified, former: 0 };
    let (size, content) = (bytes.len() as u64, Content::Inline(bytes.to_vec()));
    let write = Op::Write { file, size, content, base: Vec::new(), fence: None };
    (link, file, vec![create, write])
}

fn make_directory(text: &str) -> (FileId, Op) {
    let file = FileId::of_directory(FileId::ROOT, text.as_bytes(), 0);
    let (link, parent, kind) = (LinkId::of_directory(file), FileId::ROOT, NodeKind::Directory);
    let (name, mode, modified) = (name(text), 0o755, Stamp::default());
    (file, Op::Create { link, file, parent, name, kind, mode, modified, former: 0 })
}

/// A directory with two files, which are changed, renamed and removed.
fn play() -> (World, Vec<EntryId>) {
    let mut world = World::new();
    let mut entries = Vec::new();
    let (d, directory) = make_directory("d");
    let (one, one_file, ops) = make(d, "one", b"1");
    entries.push(world.commit(0, &[vec![directory], ops].concat()));
    let (two, _, ops) = make(FileId::ROOT, "two", b"2");
    entries.push(world.commit(0, &ops));
    let again = write(world.bucket(0))((one_file, b'x')).unwrap();
    let chmod = Op::SetAttr { file: one_file, attribute: Attribute::Mode(0o600) };
    entries.push(world.commit(0, &[again, chmod]));
    let to = |link, parent, text| Op::Move { link, parent, name: name(text) };
    entries.push(world.commit(0, &[to(one, FileId::ROOT, "uno")]));
    entries.push(world.commit(0, &[to(LinkId::of_directory(d), FileId::ROOT, "e")]));
    entries.push(world.commit(0, &[to(two, d, "two"), Op::Delete { link: one }]));
    entries.push(world.commit(0, &[to(one, FileId::ROOT, "uno")]));
    (world, entries)
}

fn lines(world: &mut World, of: Option<&str>) -> Vec<String> {
    let asked = Asked { after: None, most: 100, path: of.map(path) };
    let told = world.bucket(0).told(&asked, &label).unwrap();
    told.iter().flat_map(|one| one.deeds.iter().map(Deed::to_string)).collect()
}

#[test]
fn the_history_says_what_each_entry_did_by_the_names_of_then() {
    let (mut world, _) = play();
    assert_eq!(
        lines(&mut world, None),
        [
            "/uno: brought back",
            "/e/two: renamed from /two",
            "/uno: removed",
            "/e: renamed from /d",
            "/uno: renamed from /d/one",
            "/d/one: written, 3 bytes, mode 600",
            "/two: made",
            "/d: made, a directory",
            "/d/one: made",
        ]
    );
}

#[test]
fn the_history_of_one_file_goes_on_when_it_is_renamed_or_gone() {
    let (mut world, _) = play();
    let one = |world: &mut World, of| {
        let lines = lines(world, Some(of)).into_iter();
        lines.filter(|line| !line.contains("two") && !line.contains("/d:")).collect::<Vec<_>>()
    };
    let expected = [
        "/uno: brought back",
        "/uno: removed",
        "/uno: renamed from /d/one",
        "/d/one: written, 3 bytes, mode 600",
        "/d/one: made",
    ];
    assert_eq!(one(&mut world, "uno"), expected);
    let link = world.bucket(0).read(|tree| {
        Ok(match tree.find(&Directory::root(), &name("uno"), &label)? {
            Some(What::File { link, .. }) => link,
            other => panic!("{other:?}"),
        })
    });
    world.commit(0, &[Op::Delete { link: link.unwrap() }]);
    assert_eq!(one(&mut world, "uno")[1..], expected);
    // A directory's is that of all that is or was in it.
    assert_eq!(lines(&mut world, Some("e")).len(), 9 - 2, "{:?}", lines(&mut world, Some("e")));
    assert_eq!(lines(&mut world, Some("nothing")), [""; 0]);
    let attribute = Attribute::Mode(0o700);
    world.commit(0, &[Op::SetAttr { file: FileId::ROOT, attribute }]);
    assert_eq!(lines(&mut world, Some(""))[0], "/: mode 700");
}

#[test]
fn a_version_is_named_by_its_entry_or_by_a_time() {
    let (mut world, entries) = play();
    let bucket = world.bucket(0);
    let named = |bucket: &mut Bucket, wanted: Wanted| bucket.version(&wanted).unwrap().entry;
    assert_eq!(named(bucket, "@".parse().unwrap()), None);
    for newest in [Wanted::Newest, "~0".parse().unwrap()] {
        let version = bucket.version(&newest).unwrap();
        assert!(bucket.is_newest(&version));
    }
    assert_eq!(named(bucket, "~2".parse().unwrap()), Some(entries[4]));
    let hash = bucket.feeds.hash(entries[3]).unwrap().to_string();
    assert_eq!(named(bucket, hash[..16].to_uppercase().parse().unwrap()), Some(entries[3]));
    // They are made at 1010, 1020, and so on.
    assert_eq!(named(bucket, Wanted::At(1029)), Some(entries[1]));
    assert_eq!(named(bucket, Wanted::At(1030)), Some(entries[2]));
    for nothing in [Wanted::At(1009), Wanted::Back(7), Wanted::Back(u64::MAX)] {
        assert!(matches!(bucket.version(&nothing), Err(PastError::NoEntry)), "{nothing:?}");
    }
    let several = bucket.version(&Wanted::Hash(String::new()));
    assert!(matches!(&several, Err(PastError::Ambiguous(all)) if all.len() == 7), "{several:?}");
    for text in ["", "~", "~-1", "~+1", "abc", "latestt", "abcg", &"a".repeat(65)] {
        assert_eq!(text.parse::<Wanted>(), Err(NoVersion), "{text}");
    }
}

#[test]
fn what_cannot_be_restored_or_undone_is_refused_by_name() {
    let (mut world, entries) = play();
    let bucket = world.bucket(0);
    let first = bucket.version_of(entries[0]).unwrap();
    let missing = bucket.restoring(&path("two"), &first, &label);
    assert!(matches!(missing, Err(PastError::NotThere)), "{missing:?}");
    let changed = bucket.undoing(entries[3]).unwrap_err();
    assert_eq!(changed.to_string(), "something later changed `/uno`");
    // Its directory is called otherwise now: it is made again where it was.
    let ops = bucket.restoring(&path("/d/one"), &first, &label).unwrap();
    world.commit(0, &ops);
    let names: Vec<String> = world.model(0).keys().map(|path| deeds::text(path)).collect();
    assert_eq!(names, ["/", "/d", "/d/one", "/e", "/e/two", "/uno"]);
}
