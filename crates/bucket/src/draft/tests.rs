//! A bucket that is changed by drafts is a tree of paths, as everybody knows them.

mod model;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use gate_core::tree::id::FeedId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::bucket::Bucket;
use crate::identity::Identity;
use crate::law;
use crate::vault::Vault;
use model::{Act, Model, Node, Thing, act};

struct World {
    home: tempfile::TempDir,
    device: Identity,
    uuid: Uuid,
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let device = Identity::random();
        let uuid = Bucket::create(home.path(), &device, 1).unwrap();
        World { home, device, uuid }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join(self.uuid.to_string())
    }

    fn open(&self) -> Bucket {
        Bucket::open(&self.dir(), &self.device).unwrap()
    }
}

fn path(path: &str) -> TreePath {
    TreePath::try_from(path.as_bytes()).unwrap()
}

fn meta(mode: u32) -> Meta {
    Meta { mode, modified: Stamp { seconds: i64::from(mode), nanos: 0 } }
}

fn stored(bytes: &[u8]) -> Stored {
    let content = Content::Inline(bytes.to_vec());
    Stored { size: bytes.len() as u64, content, chunks: Vec::new() }
}

/// Nothing here has a name that says who gave it.
fn nobody(_: &FeedId) -> String {
    unreachable!("one device gives no name twice")
}

/// Returns all that is in a tree, by path.
fn told<T: Look<Error = ShelfError>>(
    state: &State<T>,
    vault: &Vault,
) -> Result<BTreeMap<String, Node>, ShelfError> {
    let mut all = BTreeMap::new();
    let mut met = vec![(String::new(), What::Directory(Directory::root()))];
    while let Some((path, what)) = met.pop() {
        let file = match &what {
            What::Directory(directory) => {
                for shown in state.list(directory, &nobody)? {
                    let name = String::from_utf8(shown.name.bytes().to_vec()).unwrap();
                    met.push((format!("{path}/{name}"), shown.what));
                }
                directory.first()
            }
            What::File { file, .. } => *file,
            What::Beside { .. } => panic!("nobody else wrote {path}"),
        };
        let record = state.tables().file(file)?.unwrap_or_default();
        let thing = match record.made.as_ref().map(|made| &made.value) {
            None | Some(Kind::Directory) => Thing::Directory,
            Some(Kind::Symlink(target)) => Thing::Symlink(target.clone()),
            Some(Kind::File) => {
                let (id, version) = record.winner().unwrap();
                let body = state.body(*id)?.unwrap();
                let mut bytes = vec![0; version.size as usize];
                vault.read_at(&body, version.size, 0, &mut bytes).unwrap();
                Thing::File(bytes)
            }
        };
        let extended = record.extended.into_iter();
        let node = Node {
            thing,
            mode: record.mode.map_or(0, |mode| mode.value),
            modified: record.modified.map_or(0, |at| at.value.seconds),
            extended: extended.filter_map(|(name, set)| Some((name, set.value?))).collect(),
        };
        all.insert(path, node);
    }
    Ok(all)
}

/// Returns all that the index has of the tree.
fn rows(bucket: &mut Bucket) -> Vec<u8> {
    let mut all = Vec::new();
    bucket.snapshot().unwrap().tables().rows().unwrap().read_to_end(&mut all).unwrap();
    all
}

fn draft_one(draft: &mut Draft, vault: &Vault, act: &Act) -> Result<(), DraftError> {
    let time = |seconds| Stamp { seconds, nanos: 0 };
    match act {
        Act::MakeDirectory(at, mode) => draft.make_directory(&path(at), meta(*mode)),
        Act::MakeDirectories(at, mode) => draft.make_directories(&path(at), meta(*mode)),
        Act::Put(at, bytes, mode) => {
            let stored = vault.take_in(&mut &bytes[..]).unwrap();
            draft.put(&path(at), &stored, meta(*mode))
        }
        Act::Symlink(at, target) => draft.symlink(&path(at), target, time(3)),
        Act::Link(at, other) => draft.link(&path(at), &path(other)),
        Act::Remove(at) => draft.remove(&path(at)),
        Act::RemoveAll(at) => draft.remove_all(&path(at)),
        Act::Rename(from, to) => draft.rename(&path(from), &path(to)),
        Act::Mode(at, mode) => draft.set_mode(&path(at), *mode),
        Act::Modified(at, seconds) => draft.set_modified(&path(at), time(*seconds)),
        Act::Extended(at, value) => draft.set_extended(&path(at), b"user.x", value.as_deref()),
    }
}

#[test]
fn drafts_do_to_a_bucket_what_is_done_to_a_tree_of_paths() {
    // Whether it is given up, whether the bucket is opened again, what is done.
    let drafts =
        prop::collection::vec((0..6_u8, 0..4_u8, prop::collection::vec(act(), 0..12)), 1..8);
    // Each is a bucket on the disk: a few long lives tell as much as thousands of short ones.
    law::hold(64, &drafts, |drafts| {
        let world = World::new();
        let mut bucket = world.open();
        let mut model = Model::new();
        for (fate, opening, acts) in drafts {
            let vault = bucket.vault().unwrap();
            let before = model.clone();
            let is_given_up = fate == 0;
            let outcome = bucket.change(1, |draft| {
                for act in &acts {
                    let (found, expected) = (draft_one(draft, &vault, act), model.act(act));
                    let found = found.map_err(|error| format!("{error:?}"));
                    assert_eq!(found, expected.map_err(str::to_owned), "{act:?}");
                }
                let told = told(draft.tree(), &vault)?;
                assert_eq!(told, model.told(), "who drafts sees what was drafted");
                if is_given_up { Err(DraftError::NotFound) } else { Ok(draft.is_empty()) }
            });
            match outcome {
                Ok((entry, is_empty)) => assert_eq!(entry.is_none(), is_empty),
                Err(DraftError::NotFound) if is_given_up => model = before,
                Err(error) => panic!("{error:?}"),
            }
            if opening == 0 {
                drop((bucket, vault));
                bucket = world.open();
            }
            let vault = bucket.vault().unwrap();
            let told = bucket.read(|tree| told(tree, &vault)).unwrap();
            assert_eq!(told, model.told());
        }
        let rows = rows(&mut bucket);
        drop(bucket);
        fs::remove_file(world.dir().join("index")).unwrap();
        assert_eq!(
            rows,
            self::rows(&mut world.open()),
            "what was drafted follows from the entries"
        );
        Ok(())
    });
}

fn refused(
    bucket: &mut Bucket,
    draft: impl FnOnce(&mut Draft) -> Result<(), DraftError>,
) -> DraftError {
    bucket.change(1, draft).expect_err("it is refused")
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let world = World::new();
    let mut bucket = world.open();
    let (entry, ()) = bucket
        .change(1, |draft| {
            draft.make_directories(&path("/d/e"), meta(0o755))?;
            draft.put(&path("/f"), &stored(b"text"), meta(0o644))?;
            draft.put(&path("/g"), &stored(b"text"), meta(0o644))?;
            draft.symlink(&path("/s"), b"f", Stamp::default())
        })
        .unwrap();
    assert!(entry.is_some());
    let frontier = bucket.frontier();
    type Refused = fn(&mut Draft) -> Result<(), DraftError>;
    let refusals: [(Refused, &str); 17] = [
        (|d| d.remove(&path("/x")), "NotFound"),
        (|d| d.make_directory(&path("/x/y"), meta(0o755)), "NotFound"),
        (|d| d.remove(&path("/f/x")), "NotADirectory"),
        (|d| d.put(&path("/s/x"), &stored(b""), meta(0)), "NotADirectory"),
        (|d| d.rename(&path("/d"), &path("/f")), "NotADirectory"),
        (|d| d.put(&path("/d"), &stored(b""), meta(0)), "IsADirectory"),
        (|d| d.link(&path("/d"), &path("/x")), "IsADirectory"),
        (|d| d.rename(&path("/f"), &path("/d")), "IsADirectory"),
        (|d| d.make_directory(&path("/f"), meta(0)), "Exists"),
        (|d| d.put(&path("/s"), &stored(b""), meta(0)), "Exists"),
        (|d| d.remove(&path("/d")), "NotEmpty"),
        (|d| d.rename(&path("/d"), &path("/d/e/x")), "IntoItself"),
        (|d| d.remove_all(&path("/")), "IsRoot"),
        (|d| d.remove(&TreePath::try_from(&b"a//b"[..])?), "Invalid(Empty)"),
        (|d| d.set_mode(&path("/f"), 0o10000), "Fault("),
        (|d| d.symlink(&path("/x"), b"", Stamp::default()), "Fault("),
        (|d| d.set_extended(&path("/f"), b"", None), "Fault("),
    ];
    for (refusal, expected) in refusals {
        let found = format!("{:?}", refused(&mut bucket, refusal));
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
    assert_eq!(bucket.frontier(), frontier);
    // Nothing of a draft is done if a part of it is refused.
    refused(&mut bucket, |draft| {
        draft.remove(&path("/f"))?;
        draft.remove(&path("/f"))
    });
    let (none, ()) = bucket.change(1, |draft| draft.find(&path("/f")).map(drop)).unwrap();
    assert_eq!((none, bucket.frontier()), (None, frontier));
}

#[test]
fn a_file_that_is_renamed_over_another_becomes_a_version_of_that() {
    let world = World::new();
    let mut bucket = world.open();
    let file = |what: Result<What, DraftError>| match what {
        Ok(What::File { file, .. }) => file,
        other => panic!("{other:?}"),
    };
    let (_, (before, saved)) = bucket
        .change(1, |draft| {
            draft.put(&path("/f"), &stored(b"old"), meta(0o644))?;
            draft.put(&path("/tmp"), &stored(b"new"), meta(0o600))?;
            let before = file(draft.find(&path("/f")));
            draft.rename(&path("/tmp"), &path("/f"))?;
            Ok::<_, DraftError>((before, file(draft.find(&path("/f")))))
        })
        .unwrap();
    assert_eq!(saved, before, "whoever has it open has the file that is saved");
    // One that has two names stays what it is under the other.
    let (_, (other, put)) = bucket
        .change(1, |draft| {
            draft.link(&path("/f"), &path("/g"))?;
            draft.put(&path("/tmp"), &stored(b"newer"), meta(0o600))?;
            let put = file(draft.find(&path("/tmp")));
            draft.rename(&path("/tmp"), &path("/f"))?;
            assert_eq!(file(draft.find(&path("/f"))), put);
            Ok::<_, DraftError>((file(draft.find(&path("/g"))), put))
        })
        .unwrap();
    assert_eq!(other, before);
    assert_ne!(put, before);
}

#[test]
fn a_draft_that_is_full_says_so_and_keeps_what_it_has() {
    let world = World::new();
    let mut bucket = world.open();
    let bytes = stored(&[7; 1024]);
    let (_, count) = bucket
        .change(1, |draft| {
            for n in 0.. {
                match draft.put(&path(&format!("/{n}")), &bytes, meta(0o644)) {
                    Ok(()) => {}
                    Err(DraftError::Full) => return Ok(n),
                    Err(error) => return Err(error),
                }
            }
            unreachable!("an entry has an end")
        })
        .unwrap();
    assert!(count > DRAFT_BYTES_MAX / 2048, "{count}");
    let list = |draft: &mut Draft| draft.tree().list(&Directory::root(), &nobody);
    let (_, list) = bucket.change(1, |draft| Ok::<_, DraftError>(list(draft)?)).unwrap();
    assert_eq!(list.len(), count);
    // What is too much even alone is told from what is too much besides.
    let chunks = vec![Address([1; 32]); DRAFT_CHUNKS_MAX + 1];
    let too_large = Stored { chunks, ..stored(b"") };
    let found = refused(&mut bucket, |draft| draft.put(&path("/x"), &too_large, meta(0)));
    assert!(matches!(found, DraftError::TooLarge), "{found:?}");
}
