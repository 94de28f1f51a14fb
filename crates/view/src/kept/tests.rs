//! A store as it is used, bounded, and left by those who die.

use std::io::Read as _;

use super::*;

struct World {
    dir: tempfile::TempDir,
    name: &'static str,
    limits: Limits,
}

impl World {
    fn new(limits: Limits) -> World {
        World { dir: tempfile::tempdir().unwrap(), name: "store", limits }
    }

    fn place(&self) -> Place {
        Place { dir: self.dir.path().join(self.name), limits: self.limits }
    }

    fn store(&self) -> Store {
        Store::open_or_make_later(self.place())
    }

    fn file(&self, name: &str, text: &str) -> OwnedFd {
        fs::write(self.dir.path().join(name), text).unwrap();
        File::open(self.dir.path().join(name)).unwrap().into()
    }

    fn keep(&self, store: &mut Store, text: &str) -> u64 {
        let file = self.file("f", text);
        let record = Record::new("f".into(), ("ada", "open"), Facts::of(&file).unwrap());
        let added = store.keep(&file, Take::Copy, &record).unwrap();
        let id = added.id;
        store.settle(added, Went::Ahead);
        id
    }

    /// Makes a version look kept at a time of a former run of the machine.
    fn seem_kept(&self, id: u64, at_ms: u64) {
        let path = self.place().dir.join(id.to_string()).join(RECORD);
        let mut record: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        (record["at_ms"], record["in_run"]) = (at_ms.into(), serde_json::Value::Null);
        fs::write(path, record.to_string()).unwrap();
    }

    fn versions(&self) -> Vec<Version> {
        Store::versions(&self.place().dir).unwrap()
    }

    fn ids(&self) -> Vec<u64> {
        self.versions().iter().map(|version| version.id).collect()
    }

    fn text(&self, version: &Version) -> String {
        let mut text = String::new();
        Store::open(&self.place().dir, version).unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

#[test]
fn what_is_kept_comes_back_and_numbers_only_rise() {
    let world = World::new(Limits::default());
    assert!(world.versions().is_empty(), "there is no store yet");
    let (mut one, mut other) = (world.store(), world.store());
    assert_eq!(world.keep(&mut one, "first"), 1);
    assert_eq!(world.keep(&mut other, "second"), 2, "another process has its own idea of the next");
    assert_eq!(world.keep(&mut one, "third"), 3);
    let texts: Vec<String> = world.versions().iter().map(|v| world.text(v)).collect();
    assert_eq!(texts, ["first", "second", "third"]);
    let mode = fs::metadata(world.place().dir).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_file_that_loses_its_only_name_is_kept_itself_and_one_with_two_is_copied() {
    let world = World::new(Limits::default());
    let mut store = world.store();
    for (links, is_itself) in [(1, true), (2, false)] {
        let file = world.file("f", "text");
        if links == 2 {
            fs::hard_link(world.dir.path().join("f"), world.dir.path().join("g")).unwrap();
        }
        let record = Record::new("f".into(), ("ada", "rename"), Facts::of(&file).unwrap());
        let id = store.keep(&file, Take::Link, &record).unwrap().id;
        let content = fs::metadata(world.place().dir.join(id.to_string()).join(CONTENT)).unwrap();
        let ours = rustix::fs::fstat(&file).unwrap();
        assert_eq!(content.ino() == ours.st_ino, is_itself, "{links} names");
        fs::remove_file(world.dir.path().join("f")).unwrap();
    }
}

/// A version that is the file itself, or of which nothing came, would be no version.
#[test]
fn what_is_not_overwritten_after_all_is_not_kept() {
    let world = World::new(Limits::default());
    let mut store = world.store();
    let add = |store: &mut Store, take| {
        let file = world.file("f", "text");
        let record = Record::new("f".into(), ("ada", "rename"), Facts::of(&file).unwrap());
        store.keep(&file, take, &record).unwrap()
    };
    let added = add(&mut store, Take::Copy);
    store.settle(added, Went::Nowhere);
    let added = add(&mut store, Take::Link);
    store.settle(added, Went::Ahead);
    assert!(world.ids().is_empty(), "the file still has its name");
    let added = add(&mut store, Take::Link);
    drop(world.store());
    assert_eq!(world.ids().len(), 1, "it is not settled yet");
    drop(added);
    drop(world.store());
    assert!(world.ids().is_empty(), "its writer has died");
    let added = add(&mut store, Take::Link);
    fs::remove_file(world.dir.path().join("f")).unwrap();
    store.settle(added, Went::Ahead);
    assert_eq!(world.ids().len(), 1);
}

#[test]
fn the_newest_win() {
    let limits = Limits { bytes_max: 10, ..Limits::default() };
    let world = World::new(limits);
    let mut store = world.store();
    for _ in 0..5 {
        world.keep(&mut store, "1234");
    }
    assert_eq!(world.ids(), [4, 5]);
    // As of a former run of the machine, by a clock that was ahead: the second is older.
    world.seem_kept(4, now_ms() + 1_000_000);
    world.seem_kept(5, 1);
    drop(world.store());
    assert_eq!(world.ids(), [4]);
}

/// Nobody else would trim what was kept of a source that has no view any more.
#[test]
fn all_stores_are_trimmed_together_each_by_its_own_age() {
    const DAY_S: u64 = 24 * 60 * 60;
    let limits = Limits { bytes_max: 16, file_bytes_max: 1, age_s_max: DAY_S };
    let mut world = World::new(limits);
    let mut former = world.store();
    for text in ["1234", "5678"] {
        world.keep(&mut former, text);
    }
    former.trim_all();
    drop(former);
    let of_former = world.place().dir;
    world.name = "other";
    world.limits.age_s_max *= 3;
    let mut store = world.store();
    for _ in 0..3 {
        world.keep(&mut store, "1234");
        store.trim_all();
    }
    let ids_of_former = || Store::versions(&of_former).unwrap().iter().map(|v| v.id).collect();
    assert_eq!((ids_of_former(), world.ids()), (vec![2], vec![1, 2, 3]), "the oldest goes first");
    world.seem_kept(2, now_ms() - 2 * DAY_S * 1000);
    world.name = "store";
    world.seem_kept(2, now_ms() - 2 * DAY_S * 1000);
    let beside = world.dir.path().join("beside");
    fs::create_dir_all(beside.join("1")).unwrap();
    trim(world.dir.path());
    assert!(ids_of_former().is_empty(), "a day was its bound");
    world.name = "other";
    assert_eq!(world.ids(), [1, 2, 3]);
    assert!(beside.join("1").exists(), "that is no store");
}

/// A writer that was killed leaves `.new-…`; the next one clears it away, unless somebody is
/// at work.
#[test]
fn what_a_dead_writer_left_is_cleared_away() {
    let world = World::new(Limits::default());
    let mut store = world.store();
    world.keep(&mut store, "text");
    let left = world.place().dir.join(".new-1-1");
    fs::create_dir(&left).unwrap();
    fs::write(left.join(CONTENT), "half").unwrap();
    assert_eq!(world.ids(), [1]);
    let adding = store.lock(FlockOperation::LockShared).unwrap();
    drop(world.store());
    assert!(left.exists(), "its writer may live");
    drop(adding);
    drop(world.store());
    assert!(!left.exists());
    assert_eq!(world.ids(), [1]);
}

#[test]
fn a_version_that_lost_bytes_is_not_given_out() {
    let world = World::new(Limits::default());
    world.keep(&mut world.store(), "text");
    fs::write(world.place().dir.join("1").join(CONTENT), "te").unwrap();
    let error = Store::open(&world.place().dir, &world.versions()[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[test]
fn a_version_of_another_release_is_left_alone() {
    let world = World::new(Limits::default());
    let mut store = world.store();
    world.keep(&mut store, "text");
    let path = world.place().dir.join("1").join(RECORD);
    let newer = fs::read_to_string(&path).unwrap().replace("\"format\":1", "\"format\":2");
    fs::write(&path, newer).unwrap();
    let mut store = world.store();
    assert!(world.versions().is_empty());
    assert_eq!(world.keep(&mut store, "more"), 2);
    assert!(path.exists());
}

#[test]
fn two_sources_have_two_places() {
    let of = |source: &str| Place::of("/s".as_ref(), source.as_ref(), Limits::default()).dir;
    assert_ne!(of("/a/repo"), of("/b/repo"));
    assert!(of("/a/repo").starts_with("/s/kept/") && of("/").starts_with("/s/kept/"));
}
