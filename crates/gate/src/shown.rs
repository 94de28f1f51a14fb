//! Views of a tree that is no directory, tried with one that lies in memory.

mod memory;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use gate_api::wire::{Origin, Source};
use gate_api::{ClientInfo, Session};
use gate_broker::{Broker, Running};
use gate_view::kept::{Limits, Place};
use gate_view::mount::{About, Behind, Berth, Ears};
use gate_view::policy::Policies;
use gate_view::{Identity, Options, OwnerScope, Ready, ServeError, backing, guard};

use memory::Memory;

/// A view of a tree in memory, with a broker in the same process; unmounted when dropped.
struct Shown {
    point: tempfile::TempDir,
    server: Option<JoinHandle<Result<(), ServeError>>>,
    _broker: (Running, tempfile::TempDir),
}

impl Shown {
    fn new() -> Shown {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let [point, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let broker = Broker::start(gate_broker::Options::new(state.path().to_owned())).unwrap();
        let ears = Ears::new();
        let client = ClientInfo::named("shown");
        let session = Session::connect(broker.door(), client, Arc::new(ears.clone())).unwrap();
        let origin = Origin::Bucket("memory".to_owned());
        let source = Source { origin, space: None, by_host_and_port: false, rules: None };
        let attachment = session.attach(source).unwrap();
        let behind = Behind::Tree {
            name: "gate:memory".into(),
            source: Arc::new(Memory::new()),
            about: serde_json::Map::from_iter([("bucket".to_owned(), "memory".into())]),
        };
        let options = options(point.path(), state.path());
        let ready = Ready::mount(behind, (session, &attachment), &ears, options).unwrap();
        let server = Some(std::thread::spawn(move || ready.serve()));
        Shown { point, server, _broker: (broker, state) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if gate_fuse::unmount(self.point.path()).is_err() {
            let _ = gate_fuse::detach(self.point.path());
        }
        if !std::thread::panicking() {
            self.server.take().expect("served once").join().unwrap().unwrap();
        }
    }
}

/// All that is of directories alone is asked for, and must not matter.
fn options(point: &Path, state: &Path) -> Options {
    Options {
        mountpoint: point.to_owned(),
        berth: Berth::Free,
        policies: Policies::new(Vec::new(), None).unwrap(),
        identity: Identity {
            scope: OwnerScope::Process,
            owner: String::new(),
            agent: Some("ada".to_owned()),
            acquire_timeout: None,
        },
        release_on_flush: false,
        allow_other: false,
        read_only: false,
        backing: backing::Policy::Everything,
        kill: true,
        guard: guard::Policy::Keep,
        kept: Place::of(state, point, Limits::default()),
        about: About { broker: state.into() },
    }
}

#[test]
fn a_tree_that_is_no_directory_is_used_as_one() {
    let shown = Shown::new();
    let text = "text ".repeat(20_000);
    fs::write(shown.path("f"), &text).unwrap();
    assert_eq!(fs::read_to_string(shown.path("f")).unwrap(), text);
    fs::create_dir(shown.path("d")).unwrap();
    fs::write(shown.path("d/tmp"), "new").unwrap();
    let before = fs::File::open(shown.path("f")).unwrap();
    fs::rename(shown.path("d/tmp"), shown.path("f")).unwrap();
    assert_eq!(fs::read_to_string(shown.path("f")).unwrap(), "new");
    let mut start = [0; 4];
    before.read_exact_at(&mut start, 0).unwrap();
    assert_eq!((&start, before.metadata().unwrap().len()), (b"text", text.len() as u64));
    assert_eq!(
        (shown.names(""), shown.names("d").len()),
        (vec!["d".to_owned(), "f".to_owned()], 0)
    );
    fs::hard_link(shown.path("f"), shown.path("d/g")).unwrap();
    assert_eq!(fs::metadata(shown.path("d/g")).unwrap().nlink(), 2);
    fs::File::options().write(true).open(shown.path("d/g")).unwrap().set_len(1).unwrap();
    assert_eq!(fs::read_to_string(shown.path("f")).unwrap(), "n");
    fs::set_permissions(shown.path("f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::metadata(shown.path("f")).unwrap().mode() & 0o7777, 0o600);
    let refused = fs::remove_dir(shown.path("d")).unwrap_err().kind();
    assert_eq!(refused, io::ErrorKind::DirectoryNotEmpty);
    fs::remove_file(shown.path("d/g")).unwrap();
    fs::remove_dir(shown.path("d")).unwrap();
    assert_eq!(shown.names(""), ["f"]);
}

/// There is no file of this machine on which the view could keep them.
#[test]
fn locks_on_a_tree_that_is_no_directory_are_kept_by_the_kernel() {
    let shown = Shown::new();
    fs::write(shown.path("f"), "").unwrap();
    let open = || fs::File::options().read(true).write(true).open(shown.path("f")).unwrap();
    let (one, other) = (open(), open());
    one.lock().unwrap();
    assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
    one.unlock().unwrap();
    other.try_lock().unwrap();
}

#[test]
fn a_view_of_a_tree_tells_of_the_tree_and_of_no_directory() {
    let shown = Shown::new();
    let mut text = vec![0; 4096];
    let length = rustix::fs::getxattr(shown.point.path(), "user.gate.view", &mut text[..]).unwrap();
    let about: serde_json::Value = serde_json::from_slice(&text[..length]).unwrap();
    assert_eq!((&about["bucket"], &about["agent"]), (&"memory".into(), &"ada".into()));
    for of_directories in ["source", "root", "root_descriptor", "kept"] {
        assert!(about.get(of_directories).is_none(), "{of_directories}");
    }
}
