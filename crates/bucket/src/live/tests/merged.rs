//! Texts that two wrote at the same time are shown as one, and whoever writes that writes in place of both.

use gate_core::tree::id::{EntryId, OpId};
use gate_core::tree::op::{Content, Extent, Op};

use super::saves::{file_at, make, name, quiet, read, shown};
use super::*;
use crate::draft::Meta;

const BASE: &str = "1\n2\n3\n4\n5\n";
const ONE: &str = "one\n2\n3\n4\n5\n";
const OTHER: &str = "1\n2\n3\n4\nother\n";
const BOTH: &str = "one\n2\n3\n4\nother\n";

/// Somebody who has seen just these versions writes another, behind the back of whoever uses the bucket.
fn behind(live: &Live, at: &str, base: &[OpId], text: &str) -> OpId {
    let (file, size, base) = (file_at(live, at), text.len() as u64, base.to_vec());
    let content = Content::Inline(text.into());
    let write = Op::Write { file, size, content, base, fence: None };
    let entry = live.lock().unwrap().commit(&[write], Vec::new(), 1).unwrap();
    OpId { entry, place: 0 }
}

fn heads(live: &Live, at: &str) -> Vec<OpId> {
    let file = file_at(live, at);
    let record = live.inner.look(|pending| pending.draft.file(file)).unwrap();
    record.heads.into_keys().collect()
}

/// Makes a file that two change at the same time.
fn contested(live: &Live, at: &str, base: &str, sides: [&str; 2]) -> Vec<OpId> {
    make(live, at, base.as_bytes());
    live.settle().unwrap();
    let before = heads(live, at);
    let both = sides.map(|side| behind(live, at, &before, side));
    assert_eq!(heads(live, at).len(), 2);
    both.to_vec()
}

fn texts<const N: usize>(expected: [(&str, &str); N]) -> BTreeMap<String, Vec<u8>> {
    expected.map(|(name, text)| (name.to_owned(), text.into())).into()
}

fn what(live: &Live, at: &str) -> What {
    live.find(&Directory::root(), &name(at)).unwrap().unwrap()
}

#[test]
fn n13_what_two_wrote_at_the_same_time_is_shown_as_one() {
    let world = quiet();
    let live = world.live();
    let both = contested(live, "f", BASE, [ONE, OTHER]);
    let check = || {
        assert_eq!(shown(live), texts([("f", BOTH)]));
        assert_eq!(live.facts(&what(live, "f")).unwrap().size, BOTH.len() as u64);
    };
    check();
    // Who only opens it, to write even, makes no version.
    let known = || lock(&live.inner.bucket).frontier();
    let before = known();
    let (reader, writer) = (live.open(&what(live, "f"), false), live.open(&what(live, "f"), true));
    assert_eq!(read(writer.as_ref().unwrap()), BOTH.as_bytes());
    drop(writer);
    live.settle().unwrap();
    live.inner.cut(super::super::cutter::Also::All).unwrap();
    assert_eq!(known(), before);
    check();
    // Who has it open sees what comes to it.
    let third = BASE.replace('3', "third");
    behind(live, "f", &[], &third);
    assert_eq!(heads(live, "f").len(), 3);
    assert_eq!(read(reader.as_ref().unwrap()), third.as_bytes(), "it has nothing in common");
    let last = *heads(live, "f").iter().find(|head| !both.contains(head)).unwrap();
    let resolve = Op::Resolve { file: file_at(live, "f"), given_up: vec![last] };
    live.lock().unwrap().commit(&[resolve], Vec::new(), 1).unwrap();
    assert_eq!(read(reader.as_ref().unwrap()), BOTH.as_bytes());
    check();
    // Who writes, be it a byte, writes in place of both.
    live.open(&what(live, "f"), true).unwrap().write_at(4, b"X", None).unwrap();
    let expected = BOTH.replace('2', "X");
    assert_eq!(shown(live), texts([("f", &expected)]));
    live.settle().unwrap();
    assert_eq!(shown(live), texts([("f", &expected)]));
    assert_eq!(heads(live, "f").len(), 1);
    assert_eq!(read(reader.as_ref().unwrap()), expected.as_bytes());
    drop(reader);
    assert!(lock(&live.inner.files).is_empty(), "nobody has any open");
}

#[test]
fn what_does_not_merge_is_beside_and_stays_there_when_one_is_written() {
    let world = quiet();
    let live = world.live();
    contested(live, "f", BASE, [ONE, &ONE.replace("one", "uno")]);
    contested(live, "x.db", BASE, [ONE, OTHER]);
    let names = |live: &Live| shown_names(live, &Directory::root());
    let is_beside = |names: Vec<String>| {
        assert_eq!(names[0], ".conflicts");
        assert_eq!((&names[1][..], &names[2][..2], &names[3][..]), ("f", "f@", "x.db"));
    };
    is_beside(names(live));
    live.open(&what(live, "f"), true).unwrap().write_at(0, b"X", None).unwrap();
    live.settle().unwrap();
    is_beside(names(live));
    // Nor does who puts another there take away what is beside.
    let path = TreePath::try_from(&b"f"[..]).unwrap();
    let stored = live.vault().take_in(&mut &b"put"[..]).unwrap();
    let meta = Meta { mode: 0o600, modified: now() };
    live.lock().unwrap().change(1, |draft| draft.put(&path, &stored, meta)).unwrap();
    is_beside(names(live));
    // Elsewhere it is a text like any other.
    let root = Directory::root();
    live.rename((&root, &name("x.db")), (&root, &name("x")), IfThere::Replace, ME).unwrap();
    assert_eq!(names(live).len(), 3);
    assert_eq!(read(&live.open(&what(live, "x"), false).unwrap()), BOTH.as_bytes());
    let found = live.lock().unwrap().change(1, |draft| {
        let path = TreePath::try_from(&b"x"[..]).unwrap();
        draft.put(&path, &stored, meta)
    });
    assert!(found.is_ok());
    assert_eq!(heads(live, "x").len(), 1, "who put it saw both as one");
}

fn shown_names(live: &Live, directory: &Directory) -> Vec<String> {
    let list = live.list(directory).unwrap().into_iter();
    list.map(|shown| String::from_utf8(shown.name.bytes().to_vec()).unwrap()).collect()
}

#[test]
fn n13_who_writes_in_a_view_and_who_puts_it_behind_are_merged() {
    let world = quiet();
    let live = world.live();
    make(live, "f", BASE.as_bytes());
    live.settle().unwrap();
    let before = heads(live, "f");
    let reader = live.open(&what(live, "f"), false).unwrap();
    let writer = live.open(&what(live, "f"), true).unwrap();
    behind(live, "f", &before, OTHER);
    writer.set_size(0, None).unwrap();
    writer.write_at(0, ONE.as_bytes(), None).unwrap();
    assert_eq!(read(&reader), ONE.as_bytes());
    drop(writer);
    live.settle().unwrap();
    assert_eq!(read(&reader), BOTH.as_bytes());
    assert_eq!(shown(live), texts([("f", BOTH)]));
}

#[test]
fn who_saves_over_what_is_merged_replaces_all_of_it() {
    let world = quiet();
    let live = world.live();
    let root = Directory::root();
    contested(live, "f", BASE, [ONE, OTHER]);
    live.saw(ME, &what(live, "f")).unwrap();
    make(live, "tmp", b"new\n");
    live.rename((&root, &name("tmp")), (&root, &name("f")), IfThere::Succeed, ME).unwrap();
    live.settle().unwrap();
    assert_eq!((shown(live), heads(live, "f").len()), (texts([("f", "new\n")]), 1));
    // What is merged is itself saved over something.
    let mut world = world;
    contested(world.live(), "g", BASE, [ONE, OTHER]);
    let live = world.live();
    live.rename((&root, &name("g")), (&root, &name("f")), IfThere::Succeed, ME).unwrap();
    assert_eq!(shown(live), texts([("f", BOTH)]));
    world.crash();
    assert_eq!(shown(world.live()), texts([("f", BOTH)]));
    world.live().settle().unwrap();
    assert_eq!(shown(world.live()), texts([("f", BOTH)]));
    assert_eq!(heads(world.live(), "f").len(), 1);
}

/// N8: what was written over what is merged is there, with all around it, and in place of the same versions.
#[test]
fn n8_what_is_written_over_what_is_merged_outlasts_a_crash() {
    let mut world = quiet();
    let long = "a line that is of no matter\n".repeat(100);
    let [base, one, other, both] = [BASE, ONE, OTHER, BOTH].map(|text| text.replace("3\n", &long));
    let live = world.live();
    make(live, "f", base.as_bytes());
    live.settle().unwrap();
    let before = heads(live, "f");
    for side in [&one, &other] {
        let stored = live.vault().take_in(&mut side.as_bytes()).unwrap();
        let (file, size, content) = (file_at(live, "f"), stored.size, stored.content);
        let write = Op::Write { file, size, content, base: before.clone(), fence: None };
        live.lock().unwrap().commit(&[write], stored.chunks, 1).unwrap();
    }
    assert_eq!(shown(live), texts([("f", &both)]));
    let writer = live.open(&what(live, "f"), true).unwrap();
    writer.write_at(4, b"X", None).unwrap();
    writer.append(b"more\n", None).unwrap();
    writer.flush().unwrap();
    let expected = both.replacen('2', "X", 1) + "more\n";
    for _ in 0..2 {
        world.crash();
        assert_eq!(heads(world.live(), "f").len(), 1, "what was logged is an entry by now");
        assert_eq!(shown(world.live()), texts([("f", &expected)]));
    }
    drop(writer);
}

/// As long as what they have in common is not in reach, nobody knows whether they merge.
#[test]
fn what_is_not_in_reach_is_merged_once_it_is() {
    let mut world = quiet();
    make(world.live(), "f", b"");
    world.live().settle().unwrap();
    let text = BASE.repeat(1000);
    let copied = world.home.path().join("copy");
    copy(&world.bucket, &copied);
    let chunk = {
        let elsewhere = Live::begin(&copied, &world.device).unwrap();
        elsewhere.vault().put(text.as_bytes()).unwrap().unwrap()
    };
    let live = world.live();
    let (file, size, base) = (file_at(live, "f"), text.len() as u64, heads(live, "f"));
    let content = Content::Extents(vec![Extent { offset: 0, chunk }]);
    let write = Op::Write { file, size, content, base, fence: None };
    let entry = live.lock().unwrap().commit(&[write], Vec::new(), 1).unwrap();
    let common = [OpId { entry, place: 0 }];
    behind(live, "f", &common, "");
    behind(live, "f", &common, "");
    assert_eq!(shown(live).len(), 2);
    assert_eq!(live.vault().put(text.as_bytes()).unwrap(), Some(chunk));
    assert_eq!(shown(live), texts([("f", "")]));
    // It is needed for as long as both stand, whatever is given up.
    world.live = None;
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    let since = |bucket: &Bucket, entry: EntryId| bucket.version_of(entry).unwrap();
    let newest: Vec<_> = bucket.frontier().iter().collect();
    for back in [2, 1] {
        let (feed, count) = *newest.iter().find(|(feed, _)| *feed == entry.feed).unwrap();
        let version = since(&bucket, EntryId { feed, number: count - back });
        bucket.forget_before(&version).unwrap();
        assert!(bucket.marks().unwrap().contains(&chunk.address), "{back}");
    }
}
