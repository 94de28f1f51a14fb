//! The directory behind a real mount, beside the bare directory.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use gate_fuse::{MountOptions, Session, Wishes, detach, mount, unmount};

use super::ungated::Ungated;
use super::*;

const ADA: u32 = 4001;

/// A source, mounted; unmounted when dropped, whatever the test did.
struct Mounted {
    bare: tempfile::TempDir,
    view: tempfile::TempDir,
    ungated: Arc<Ungated>,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Mounted {
    fn new() -> Mounted {
        as_root();
        let (bare, view) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = PermissionsExt::from_mode(0o777);
        fs::set_permissions(bare.path(), open).unwrap();
        let directory = Directory::new(fs::File::open(bare.path()).unwrap(), 1).unwrap();
        let ungated = Arc::new(Ungated::new(directory));
        let options = MountOptions { allow_other: true, ..MountOptions::new(bare.path(), "gate") };
        let device = mount(view.path(), &options).unwrap();
        let wishes = Wishes { posix_acl: true, passthrough: false, locks: false };
        let session = Session::start(device, wishes).unwrap();
        let served = Arc::clone(&ungated);
        let workers = 2.try_into().unwrap();
        let server = Some(std::thread::spawn(move || session.serve(workers, &served)));
        Mounted { bare, view, ungated, server }
    }

    fn bare(&self, path: &str) -> PathBuf {
        self.bare.path().join(path)
    }

    fn view(&self, path: &str) -> PathBuf {
        self.view.path().join(path)
    }

    /// Runs a shell command inside the view as an ordinary user, and says whether it succeeded.
    fn as_ada(&self, script: &str) -> bool {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(self.view.path()).uid(ADA).gid(ADA);
        shell.output().unwrap().status.success()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if unmount(self.view.path()).is_err() {
            let _ = detach(self.view.path());
        }
        if !std::thread::panicking() {
            self.server.take().expect("served once").join().unwrap().unwrap();
        }
    }
}

/// Its server would wait there as a caller, for those who wait for it.
#[test]
fn a_view_is_not_walked_into() {
    let world = Mounted::new();
    let look_up = |path: &std::path::Path| {
        let above = Directory::new(fs::File::open(path.parent().unwrap()).unwrap(), 1).unwrap();
        let name = CString::new(path.file_name().unwrap().as_encoded_bytes()).unwrap();
        above.lookup(NodeId::ROOT, &name).map(|_| ())
    };
    assert_eq!(look_up(world.view.path()), Err(Errno::XDEV));
    assert_eq!(look_up(world.bare.path()), Ok(()));
}

#[test]
fn what_goes_in_at_one_side_comes_out_at_the_other() {
    let world = Mounted::new();
    fs::create_dir_all(world.view("a/b")).unwrap();
    fs::write(world.view("a/b/f"), b"through the view").unwrap();
    assert_eq!(fs::read(world.bare("a/b/f")).unwrap(), b"through the view");
    fs::rename(world.view("a/b"), world.view("c")).unwrap();
    fs::hard_link(world.view("c/f"), world.view("g")).unwrap();
    assert_eq!(fs::metadata(world.bare("g")).unwrap().nlink(), 2);
    fs::remove_dir_all(world.view("c")).unwrap();
    assert_eq!(fs::read(world.view("g")).unwrap(), b"through the view");
    let mut names: Vec<_> = fs::read_dir(world.bare.path()).unwrap().collect();
    names.sort_by_key(|name| name.as_ref().unwrap().file_name());
    let names: Vec<_> = names.into_iter().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(names, ["a", "g"]);
}

#[test]
fn an_unlinked_open_file_leaves_no_litter() {
    let world = Mounted::new();
    fs::write(world.view("f"), b"still here").unwrap();
    let mut file = fs::File::open(world.view("f")).unwrap();
    fs::remove_file(world.view("f")).unwrap();
    assert_eq!(fs::read_dir(world.bare.path()).unwrap().count(), 0);
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "still here");
}

#[test]
fn appends_from_beside_are_not_overwritten() {
    let world = Mounted::new();
    fs::write(world.bare("log"), b"").unwrap();
    let append = |path| fs::OpenOptions::new().append(true).open(path).unwrap();
    let (mut inside, mut beside) = (append(world.view("log")), append(world.bare("log")));
    for _ in 0..3 {
        inside.write_all(b"inside\n").unwrap();
        beside.write_all(b"beside\n").unwrap();
    }
    let expected = "inside\nbeside\n".repeat(3);
    assert_eq!(fs::read_to_string(world.bare("log")).unwrap(), expected);
    drop((inside, beside));
    assert_eq!(fs::read_to_string(world.view("log")).unwrap(), expected);
}

#[test]
fn an_ordinary_user_owns_what_it_makes_and_strips_suid() {
    let world = Mounted::new();
    assert!(world.as_ada("umask 027; echo x > f; mkdir d; ln -s f l"));
    for (path, mode) in [("f", 0o640), ("d", 0o750), ("l", 0o777)] {
        let metadata = fs::symlink_metadata(world.bare(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (ADA, mode), "{path}");
    }
    fs::write(world.view("tool"), b"x").unwrap();
    fs::set_permissions(world.view("tool"), PermissionsExt::from_mode(0o6777)).unwrap();
    assert!(world.as_ada("echo y >> tool"));
    assert_eq!(fs::metadata(world.bare("tool")).unwrap().mode() & 0o7777, 0o777);
    assert!(!world.as_ada("chmod 600 tool"));
}

#[test]
fn acls_are_enforced() {
    let world = Mounted::new();
    fs::write(world.bare("f"), b"x").unwrap();
    fs::set_permissions(world.bare("f"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(world.as_ada("cat f"));
    // user::rw-, user:ada:---, group::r--, mask::r--, other::r--
    let entries =
        [(1, 6, u32::MAX), (2, 0, ADA), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(u16::to_le_bytes(tag).into_iter().chain(u16::to_le_bytes(permissions)));
        acl.extend(u32::to_le_bytes(id));
    }
    let name = c"system.posix_acl_access";
    let set = rustix::fs::setxattr(world.view("f"), name, &acl, rustix::fs::XattrFlags::empty());
    set.expect("the file system under the temporary directory has ACLs");
    assert!(!world.as_ada("cat f"));
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let world = Mounted::new();
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(world.view.path())
        .unwrap();
    file.write_all(b"named later").unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let follow = AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(rustix::fs::CWD, path, rustix::fs::CWD, world.view("f"), follow).unwrap();
    assert_eq!(fs::read(world.bare("f")).unwrap(), b"named later");
}

#[test]
fn paths_follow_through_the_kernel() {
    let world = Mounted::new();
    fs::create_dir_all(world.view("a/b")).unwrap();
    fs::write(world.view("a/b/f"), b"").unwrap();
    let directory = &world.ungated.directory;
    let a = directory.nodes.known(NodeId::ROOT, c"a").unwrap();
    let b = directory.nodes.known(a, c"b").unwrap();
    let f = directory.nodes.known(b, c"f").unwrap();
    assert_eq!(directory.nodes.path_of(f).unwrap(), b"a/b/f");
    fs::rename(world.view("a"), world.view("z")).unwrap();
    assert_eq!(directory.nodes.path_of(f).unwrap(), b"z/b/f");
}
