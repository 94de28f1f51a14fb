//! A bucket in use is a directory like any other: what is done to one and to the other has the same outcome,
//! whatever became entries in between.

mod aside;
mod checkpoint;
mod long;
mod merged;
mod saves;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gate_core::tree::op::{Kind, Name};
use gate_core::tree::shown::{Directory, What};
use gate_core::tree::walk::TreePath;
use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::law;

const NAMES: [&str; 4] = ["a", "b", "a/x", "b/x"];
const FILES_OPEN: usize = 3;
const ME: Seer = Seer(1);

#[derive(Clone, Debug)]
enum Act {
    Make(usize),
    MakeDirectory(usize),
    Link(usize, usize),
    Remove(usize),
    RemoveDirectory(usize),
    Rename(usize, usize),
    Chmod(usize, u32),
    /// Opens a file, in place of one that was open.
    Open(usize, usize),
    Close(usize),
    Write(usize, u64, u8, usize),
    Append(usize, u8, usize),
    SetSize(usize, u64),
    Sync(usize),
    Settle,
    Lend,
    Checkpoint,
    /// The index is lost meanwhile.
    Reopen,
    /// The machine goes on without the process, which had closed what it wrote.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let at = 0..NAMES.len();
    let open = 0..FILES_OPEN;
    let place = prop_oneof![0_u64..40, 0_u64..200_000];
    let len = prop_oneof![4 => 0_usize..50, 1 => 0_usize..150_000];
    prop_oneof![
        3 => at.clone().prop_map(Act::Make),
        2 => at.clone().prop_map(Act::MakeDirectory),
        1 => (at.clone(), at.clone()).prop_map(|(from, to)| Act::Link(from, to)),
        2 => at.clone().prop_map(Act::Remove),
        1 => at.clone().prop_map(Act::RemoveDirectory),
        3 => (at.clone(), at.clone()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (at.clone(), 0_u32..0o1000).prop_map(|(at, mode)| Act::Chmod(at, mode)),
        3 => (open.clone(), at).prop_map(|(open, at)| Act::Open(open, at)),
        2 => open.clone().prop_map(Act::Close),
        5 => (open.clone(), place.clone(), any::<u8>(), len.clone())
            .prop_map(|(open, at, byte, len)| Act::Write(open, at, byte, len)),
        2 => (open.clone(), any::<u8>(), len).prop_map(|(open, byte, len)| Act::Append(open, byte, len)),
        2 => (open.clone(), place).prop_map(|(open, size)| Act::SetSize(open, size)),
        1 => open.prop_map(Act::Sync),
        2 => Just(Act::Settle),
        1 => Just(Act::Lend),
        1 => Just(Act::Checkpoint),
        1 => Just(Act::Reopen),
        2 => Just(Act::Crash),
    ]
}

/// A bucket in use and a bare directory, to which the same is done.
struct World {
    home: tempfile::TempDir,
    crashes: usize,
    bucket: PathBuf,
    bare: PathBuf,
    device: Identity,
    live: Option<Live>,
    open: [Option<(Opened, fs::File)>; FILES_OPEN],
}

/// What is seen of a tree: kind, mode, names, and what is in it.
type Seen = BTreeMap<PathBuf, (bool, u32, u64, Vec<u8>)>;

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let device = Identity::random();
        let (buckets, bare) = (home.path().join("buckets"), home.path().join("bare"));
        fs::create_dir(&buckets).unwrap();
        fs::create_dir(&bare).unwrap();
        let id = Bucket::create(&buckets, &device, 0).unwrap();
        let bucket = buckets.join(id.to_string());
        let live = Some(Live::begin(&bucket, &device).unwrap());
        World { home, crashes: 0, bucket, bare, device, live, open: [const { None }; FILES_OPEN] }
    }

    fn live(&self) -> &Live {
        self.live.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.open = [const { None }; FILES_OPEN];
        self.live = None;
        fs::write(self.bucket.join("index"), b"").unwrap();
        self.live = Some(Live::begin(&self.bucket, &self.device).unwrap());
    }

    fn crash(&mut self) {
        for (ours, _) in self.open.iter().flatten() {
            ours.flush().unwrap();
        }
        self.crashes += 1;
        let left = self.home.path().join(format!("crash {}", self.crashes));
        {
            // Files are copied one after the other: nobody changes them meanwhile.
            let _cutting = lock(&self.live().inner.cutting);
            copy(&self.bucket, &left);
        }
        self.bucket = left;
        self.open = [const { None }; FILES_OPEN];
        self.live = None;
        self.live = Some(Live::begin(&self.bucket, &self.device).unwrap());
    }

    fn find(&self, at: &str) -> Result<What, DraftError> {
        let path = TreePath::try_from(at.as_bytes())?;
        let mut what = What::Directory(Directory::root());
        for name in path.names() {
            let What::Directory(directory) = &what else { return Err(DraftError::NotADirectory) };
            what = self.live().find(directory, name)?.ok_or(DraftError::NotFound)?;
        }
        Ok(what)
    }

    fn place(&self, at: &str) -> Result<(Directory, Name), DraftError> {
        let (parent, name) = at.rsplit_once('/').unwrap_or(("", at));
        match self.find(parent)? {
            What::Directory(parent) => Ok((parent, Name::try_from(name.as_bytes())?)),
            _ => Err(DraftError::NotADirectory),
        }
    }

    /// Does something to both; returns whether it was done to the one, and to the other.
    fn act(&mut self, act: &Act) -> (Result<(), DraftError>, bool) {
        let bare = |at: usize| self.bare.join(NAMES[at]);
        match *act {
            Act::Make(at) => {
                let mut options = fs::File::options();
                options.write(true).create_new(true).mode(0o644);
                let theirs = options.open(bare(at));
                let ours = self.place(NAMES[at]).and_then(|(parent, name)| {
                    self.live().make_file(&parent, &name, &Kind::File, 0o644).map(drop)
                });
                (ours, theirs.is_ok())
            }
            Act::MakeDirectory(at) => {
                let theirs = fs::create_dir(bare(at));
                let ours = self.place(NAMES[at]).and_then(|(parent, name)| {
                    self.live().make_directory(&parent, &name, 0o755).map(drop)
                });
                (ours, theirs.is_ok())
            }
            Act::Link(from, to) => {
                let theirs = fs::hard_link(bare(from), bare(to));
                let ours = self.find(NAMES[from]).and_then(|what| {
                    let (parent, name) = self.place(NAMES[to])?;
                    self.live().link(&what, &parent, &name).map(drop)
                });
                (ours, theirs.is_ok())
            }
            Act::Remove(at) => {
                let theirs = fs::remove_file(bare(at));
                let ours = self
                    .place(NAMES[at])
                    .and_then(|(parent, name)| self.live().remove(&parent, &name, false));
                (ours, theirs.is_ok())
            }
            Act::RemoveDirectory(at) => {
                let theirs = fs::remove_dir(bare(at));
                let ours = self
                    .place(NAMES[at])
                    .and_then(|(parent, name)| self.live().remove(&parent, &name, true));
                (ours, theirs.is_ok())
            }
            Act::Rename(from, to) => {
                let theirs = fs::rename(bare(from), bare(to));
                let ours = self.place(NAMES[from]).and_then(|(parent, name)| {
                    let (to, to_name) = self.place(NAMES[to])?;
                    self.live()
                        .rename((&parent, &name), (&to, &to_name), IfThere::Succeed, ME)
                        .map(drop)
                });
                (ours, theirs.is_ok())
            }
            Act::Chmod(at, mode) => {
                let theirs = fs::set_permissions(bare(at), fs::Permissions::from_mode(mode));
                let ours = self.find(NAMES[at]).and_then(|what| self.live().set_mode(&what, mode));
                (ours, theirs.is_ok())
            }
            _ => self.act_on_open(act),
        }
    }

    /// The same, of what is done to files that are open, and to all.
    fn act_on_open(&mut self, act: &Act) -> (Result<(), DraftError>, bool) {
        match *act {
            Act::Open(open, at) => {
                let theirs =
                    fs::File::options().read(true).write(true).open(self.bare.join(NAMES[at]));
                let ours = self.find(NAMES[at]).and_then(|what| self.live().open(&what, true));
                let done = theirs.is_ok();
                match (ours, theirs) {
                    (Ok(ours), Ok(theirs)) => {
                        self.open[open] = Some((ours, theirs));
                        (Ok(()), true)
                    }
                    (ours, _) => (ours.map(drop), done),
                }
            }
            Act::Close(open) => {
                self.open[open] = None;
                (Ok(()), true)
            }
            Act::Write(open, at, byte, len) => {
                let Some((ours, theirs)) = &self.open[open] else { return (Ok(()), true) };
                theirs.write_all_at(&vec![byte; len], at).unwrap();
                (if len == 0 { Ok(()) } else { ours.write_at(at, &vec![byte; len], None) }, true)
            }
            Act::Append(open, byte, len) => {
                let Some((ours, theirs)) = &self.open[open] else { return (Ok(()), true) };
                let end = theirs.metadata().unwrap().len();
                theirs.write_all_at(&vec![byte; len], end).unwrap();
                (ours.append(&vec![byte; len], None).map(|at| assert_eq!(at, end)), true)
            }
            Act::SetSize(open, size) => {
                let Some((ours, theirs)) = &self.open[open] else { return (Ok(()), true) };
                theirs.set_len(size).unwrap();
                (ours.set_size(size, None), true)
            }
            Act::Sync(open) => {
                let Some((ours, _)) = &self.open[open] else { return (Ok(()), true) };
                (ours.sync(), true)
            }
            Act::Settle => (self.live().settle().map_err(DraftError::from), true),
            Act::Lend => (self.live().lock().map(drop).map_err(DraftError::from), true),
            Act::Checkpoint => {
                self.live().checkpoint().unwrap();
                (Ok(()), true)
            }
            Act::Crash => {
                self.crash();
                (Ok(()), true)
            }
            Act::Reopen => {
                self.reopen();
                (Ok(()), true)
            }
            _ => unreachable!("an act on names"),
        }
    }

    fn check(&self) {
        assert_eq!(self.seen(), self.seen_bare());
        for (ours, theirs) in self.open.iter().flatten() {
            let mut bytes = vec![0; theirs.metadata().unwrap().len() as usize + 1];
            let len = ours.read_at(0, &mut bytes).unwrap();
            let mut expected = vec![0; bytes.len() - 1];
            theirs.read_exact_at(&mut expected, 0).unwrap();
            assert!(bytes[..len] == expected, "an open file has {len} bytes");
        }
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::new();
        let mut met = vec![(PathBuf::new(), Directory::root())];
        while let Some((path, directory)) = met.pop() {
            for shown in self.live().list(&directory).unwrap() {
                let path = path.join(std::str::from_utf8(shown.name.bytes()).unwrap());
                let facts = self.live().facts(&shown.what).unwrap();
                let mut bytes = vec![0; facts.size as usize];
                match &shown.what {
                    What::Directory(directory) => met.push((path.clone(), directory.clone())),
                    what => {
                        let open = self.live().open(what, false).unwrap();
                        assert_eq!(open.read_at(0, &mut bytes).unwrap(), bytes.len());
                    }
                }
                let is_directory = facts.kind == Kind::Directory;
                seen.insert(path, (is_directory, facts.mode, facts.names, bytes));
            }
        }
        seen
    }

    fn seen_bare(&self) -> Seen {
        fn add(seen: &mut Seen, root: &Path, dir: &Path) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                let bytes = if meta.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
                let names = if meta.is_dir() { 1 } else { meta.nlink() };
                let name = path.strip_prefix(root).unwrap().to_owned();
                seen.insert(name, (meta.is_dir(), meta.mode() & 0o7777, names, bytes));
                if meta.is_dir() {
                    add(seen, root, &path);
                }
            }
        }
        let mut seen = Seen::new();
        add(&mut seen, &self.bare, &self.bare);
        seen
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn a_bucket_in_use_is_a_directory_like_any_other() {
    law::hold(16, &proptest::collection::vec(act(), 1..40), |acts| {
        let mut world = World::new();
        for act in &acts {
            let (ours, theirs) = world.act(act);
            assert_eq!(ours.is_ok(), theirs, "{act:?}: {ours:?}");
            world.check();
        }
        world.reopen();
        world.check();
        Ok(())
    });
}
