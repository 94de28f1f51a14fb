//! What is saved by a rename is a version of the file that was there.

use gate_core::tree::id::FileId;
use gate_core::tree::op::Op;

use super::*;
use crate::bucket::history::Asked;

const OTHER: Seer = Seer(2);

/// A world in which entries are made when somebody waits for them, and else never.
pub(super) fn quiet() -> World {
    let mut world = World::new();
    let live = world.live.as_mut().unwrap();
    live.inner.bell.close();
    live.cutter.take().unwrap().join().unwrap();
    world
}

pub(super) fn name(text: &str) -> Name {
    Name::try_from(text.as_bytes()).unwrap()
}

pub(super) fn make(live: &Live, at: &str, bytes: &[u8]) {
    let what = live.make_file(&Directory::root(), &name(at), &Kind::File, 0o600).unwrap();
    live.open(&what, true).unwrap().write_at(0, bytes, None).unwrap();
}

fn rename(live: &Live, from: &str, to: &str, by: Seer) -> Option<Saved> {
    let root = Directory::root();
    live.rename((&root, &name(from)), (&root, &name(to)), IfThere::Succeed, by).unwrap()
}

/// As editors do.
fn save(live: &Live, at: &str, bytes: &[u8], by: Seer) -> Option<Saved> {
    make(live, "tmp", bytes);
    rename(live, "tmp", at, by)
}

pub(super) fn file_at(live: &Live, at: &str) -> FileId {
    live.find(&Directory::root(), &name(at)).unwrap().unwrap().file()
}

pub(super) fn read(opened: &Opened) -> Vec<u8> {
    let mut bytes = vec![0; opened.size() as usize];
    assert_eq!(opened.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

/// All that is shown, and what is in it.
pub(super) fn shown(live: &Live) -> BTreeMap<String, Vec<u8>> {
    let list = live.list(&Directory::root()).unwrap().into_iter();
    list.map(|shown| {
        let bytes = read(&live.open(&shown.what, false).unwrap());
        (String::from_utf8(shown.name.bytes().to_vec()).unwrap(), bytes)
    })
    .collect()
}

#[test]
fn what_is_saved_ten_times_is_ten_versions_of_one_file() {
    let world = quiet();
    let live = world.live();
    make(live, "f", b"0");
    live.settle().unwrap();
    let file = file_at(live, "f");
    for n in 1..10_u8 {
        // Some are cut before they are renamed, and most are not.
        make(live, "tmp", &[b'0' + n]);
        if n % 3 == 2 {
            live.settle().unwrap();
        }
        rename(live, "tmp", "f", ME);
        live.settle().unwrap();
    }
    assert_eq!((file_at(live, "f"), shown(live).len()), (file, 1));
    let mut lent = live.lock().unwrap();
    let lens = lent.lens();
    let asked = Asked { after: None, most: 100, path: Some(vec![name("f")]) };
    let told = lent.told(&asked, &lens).unwrap();
    assert_eq!(told.len(), 10);
    assert!(
        told.iter().all(|told| told.deeds.iter().any(|deed| deed.path == [name("f")])),
        "{told:?}"
    );
    let undone = lent.undoing(told[0].id).unwrap();
    lent.commit(&undone, Vec::new(), 1).unwrap();
    drop(lent);
    assert_eq!(shown(live)["f"], b"8");
    // What is restored was a version of another file, too.
    let mut lent = live.lock().unwrap();
    let then = lent.version_of(told[7].id).unwrap();
    let ops = lent.restoring(&[name("f")], &then, &lens).unwrap();
    lent.commit(&ops, Vec::new(), 1).unwrap();
    drop(lent);
    assert_eq!(shown(live), BTreeMap::from([("f".to_owned(), b"2".to_vec())]));
    assert_eq!(file_at(live, "f"), file);
}

/// Of what was saved for a moment nothing is told, and mode and attributes go with it.
#[test]
fn what_was_written_beside_leaves_nothing_but_a_version() {
    let world = quiet();
    let live = world.live();
    make(live, "f", b"old");
    let root = Directory::root();
    let old = live.find(&root, &name("f")).unwrap().unwrap();
    live.set_extended(&old, b"user.old", Some(b"1")).unwrap();
    live.settle().unwrap();
    make(live, "f.lock", b"new");
    let new = live.find(&root, &name("f.lock")).unwrap().unwrap();
    live.set_mode(&new, 0o751).unwrap();
    live.set_extended(&new, b"user.new", Some(b"2")).unwrap();
    rename(live, "f.lock", "f", ME);
    let check = || {
        let what = live.find(&root, &name("f")).unwrap().unwrap();
        let facts = live.facts(&what).unwrap();
        assert_eq!((facts.mode, facts.size, facts.names), (0o751, 3, 1));
        let extended: Vec<_> = live.extended(&what).unwrap().into_iter().collect();
        assert_eq!(extended, [(b"user.new".to_vec(), b"2".to_vec())]);
        assert_eq!(shown(live), BTreeMap::from([("f".to_owned(), b"new".to_vec())]));
    };
    check();
    live.settle().unwrap();
    check();
    let mut lent = live.lock().unwrap();
    let lens = lent.lens();
    let told = lent.told(&Asked { after: None, most: 1, path: None }, &lens).unwrap();
    let known = lent.undoing(told[0].id).unwrap();
    assert!(known.iter().all(|op| !matches!(op, Op::Delete { .. } | Op::Move { .. })), "{known:?}");
    assert!(told[0].deeds.iter().all(|deed| deed.path != [name("f.lock")]), "{told:?}");
}

#[test]
fn who_has_the_old_file_open_keeps_it_and_who_has_the_new_one_goes_on_with_it() {
    let world = quiet();
    let live = world.live();
    let root = Directory::root();
    make(live, "f", b"old");
    let what = live.find(&root, &name("f")).unwrap().unwrap();
    let old = live.open(&what, true).unwrap();
    old.write_at(3, b"er", None).unwrap();
    make(live, "tmp", b"new");
    let new = live.open(&live.find(&root, &name("tmp")).unwrap().unwrap(), true).unwrap();
    let saved = rename(live, "tmp", "f", ME).unwrap();
    assert_eq!(saved.is, what);
    new.append(b"er", None).unwrap();
    old.append(b"!", None).unwrap();
    for _ in 0..2 {
        assert_eq!((read(&old), read(&new)), (b"older!".to_vec(), b"newer".to_vec()));
        assert_eq!(shown(live), BTreeMap::from([("f".to_owned(), b"newer".to_vec())]));
        let facts = live.facts(&saved.left).unwrap();
        assert_eq!((facts.names, facts.size, facts.mode), (0, 6, 0o600));
        live.settle().unwrap();
    }
    new.append(b"!", None).unwrap();
    drop((old, new));
    live.settle().unwrap();
    assert_eq!(shown(live), BTreeMap::from([("f".to_owned(), b"newer!".to_vec())]));
    assert!(lock(&live.inner.files).is_empty(), "nobody has any open");
}

/// N13: what others wrote meanwhile stays, whether the file was opened before or the other made.
#[test]
fn n13_a_save_by_rename_replaces_what_its_own_process_opened() {
    for opens in [true, false] {
        let world = quiet();
        let live = world.live();
        let root = Directory::root();
        make(live, "f", b"first");
        live.settle().unwrap();
        let what = live.find(&root, &name("f")).unwrap().unwrap();
        match opens {
            true => live.saw(ME, &what).unwrap(),
            false => make(live, "tmp", b"mine"),
        }
        // Behind the back of whoever has it mounted.
        let theirs = Op::Write {
            file: what.file(),
            size: 6,
            content: gate_core::tree::op::Content::Inline(b"theirs".to_vec()),
            base: live
                .inner
                .look(|pending| pending.draft.file(what.file()))
                .unwrap()
                .heads
                .into_keys()
                .collect(),
            fence: None,
        };
        live.lock().unwrap().commit(&[theirs], Vec::new(), 1).unwrap();
        // Who only looks at it lends nobody his sight.
        live.saw(OTHER, &what).unwrap();
        if opens {
            make(live, "tmp", b"mine");
        }
        rename(live, "tmp", "f", ME);
        live.settle().unwrap();
        let shown = shown(live);
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown.values().any(|bytes| bytes == b"theirs"), "{shown:?}");
        assert_eq!(shown["f"], b"mine");
        // Who has seen it replaces it.
        live.saw(OTHER, &what).unwrap();
        save(live, "f", b"both", OTHER);
        live.settle().unwrap();
        assert_eq!(self::shown(live), BTreeMap::from([("f".to_owned(), b"both".to_vec())]));
    }
}

#[test]
fn what_has_several_names_or_is_no_file_is_not_saved_over() {
    let world = quiet();
    let live = world.live();
    let root = Directory::root();
    make(live, "f", b"old");
    let what = live.find(&root, &name("f")).unwrap().unwrap();
    live.link(&what, &root, &name("g")).unwrap();
    assert_eq!(save(live, "f", b"new", ME), None);
    assert_ne!(file_at(live, "f"), file_at(live, "g"));
    let target = Kind::Symlink(b"g".to_vec());
    live.make_file(&root, &name("l"), &target, 0o777).unwrap();
    assert_eq!(save(live, "l", b"new", ME), None);
    assert_eq!(shown(live)["l"], b"new");
}

/// Files, and directories with what was in them; what comes out of one is told of, and so is that.
#[test]
fn of_what_is_made_and_removed_in_a_moment_no_operation_tells() {
    let world = quiet();
    let live = world.live();
    let root = Directory::root();
    live.settle().unwrap();
    let known = || lock(&live.inner.bucket).frontier();
    let before = known();
    let lead = |at: &str| match live.find(&root, &name(at)).unwrap() {
        Some(What::Directory(directory)) => directory,
        what => panic!("{what:?}"),
    };
    for _ in 0..3 {
        make(live, "tmp", b"1");
        live.remove(&root, &name("tmp"), false).unwrap();
        live.make_directory(&root, &name("d"), 0o755).unwrap();
        live.make_file(&lead("d"), &name("x"), &Kind::File, 0o644).unwrap();
        live.make_directory(&lead("d"), &name("e"), 0o755).unwrap();
        live.remove(&lead("d"), &name("x"), false).unwrap();
        live.remove(&lead("d"), &name("e"), true).unwrap();
        live.remove(&root, &name("d"), true).unwrap();
        live.settle().unwrap();
    }
    assert_eq!((known(), shown(live)), (before.clone(), BTreeMap::new()));
    // Nor when somebody else uses the bucket, or it is used no more.
    drop(live.lock().unwrap());
    assert_eq!(known(), before);
    live.make_directory(&root, &name("d"), 0o755).unwrap();
    live.make_file(&lead("d"), &name("x"), &Kind::File, 0o644).unwrap();
    live.rename((&lead("d"), &name("x")), (&root, &name("x")), IfThere::Succeed, ME).unwrap();
    live.remove(&root, &name("d"), true).unwrap();
    live.settle().unwrap();
    assert_ne!(known(), before);
    assert_eq!(shown(live), BTreeMap::from([("x".to_owned(), Vec::new())]));
    let mut lent = live.lock().unwrap();
    assert_eq!(lent.snapshot().unwrap().list(&root, &lent.lens()).unwrap().len(), 1);
}

/// What passes is not in the way of what comes, however much it is.
#[test]
fn there_is_always_room_for_what_is_made_and_removed() {
    let world = quiet();
    let live = world.live();
    let root = Directory::root();
    let value = vec![7; 60_000];
    for n in 0..40 {
        let what = live.make_file(&root, &name("tmp"), &Kind::File, 0o644).unwrap();
        live.set_extended(&what, b"user.large", Some(&value)).unwrap();
        live.remove(&root, &name("tmp"), false).unwrap();
        if n == 20 {
            make(live, "f", b"1");
        }
    }
    live.settle().unwrap();
    assert_eq!(shown(live), BTreeMap::from([("f".to_owned(), b"1".to_vec())]));
}

/// N8: also if it became a version while somebody had it open.
#[test]
fn n8_what_is_written_to_a_file_after_it_became_a_version_outlasts_a_crash() {
    let mut world = World::new();
    let live = world.live();
    make(live, "f", b"first");
    let what = live.find(&Directory::root(), &name("f")).unwrap().unwrap();
    let reader = live.open(&what, false).unwrap();
    live.settle().unwrap();
    let writer = live.open(&what, true).unwrap();
    writer.set_size(0, None).unwrap();
    writer.write_at(0, b"second", None).unwrap();
    writer.flush().unwrap();
    world.crash();
    assert_eq!(shown(world.live())["f"], b"second");
    drop((reader, writer));
}

/// A save of what was a version before is not lost with the entry that it was to be in.
#[test]
fn n8_a_save_outlasts_a_crash_before_its_entry_is_there() {
    let mut world = quiet();
    let live = world.live();
    make(live, "f", b"old");
    make(live, "tmp", b"new");
    live.settle().unwrap();
    rename(live, "tmp", "f", ME);
    // As if it came to nothing.
    let entry = lock(&live.inner.bucket).next_entry();
    let file = file_at(live, "f");
    let ops = live.inner.look(|pending| Ok(pending.draft.ops().len() as u32)).unwrap();
    live.inner.append(&[Record::Freeze { file }]).unwrap();
    live.inner.append(&[Record::Cut { entry, ops, writes: vec![(file, 0)] }]).unwrap();
    for _ in 0..2 {
        world.crash();
        assert_eq!(shown(world.live()), BTreeMap::from([("f".to_owned(), b"new".to_vec())]));
    }
}
