//! What else a program finds in a directory, it finds in a view: ACLs, long names, deep trees,
//! sockets, watches, handles. What a view refuses where a directory would not is here, too.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use gate_tests::World;
use gate_tests::wait::{SOON, wait_until};
use rustix::fs::inotify;
use rustix::io::Errno;

const DEADLINE: Duration = Duration::from_secs(60);

/// What people do all day, by root, by an ordinary user, and by one who is root in a user
/// namespace only.
const EVERYDAY: &str = r#"
    umask 027
    mkdir -p src/deep && echo one > src/a && echo two >> src/a && cat src/a
    cp -p src/a src/deep/b && mv src/deep/b src/c && ln src/c src/hard && ln -s c src/soft
    chmod 640 src/a && touch src/new && mkdir src/dir && mkfifo src/fifo
    sed -i s/one/1/ src/a && sort -o src/c src/c
    printf x | dd of=src/a bs=1 seek=100 conv=notrunc,fsync status=none
    truncate -s 9 src/hard && echo end | tee -a src/soft && readlink src/soft
    setfattr -n user.colour -v red src/a && getfattr --only-values -n user.colour src/a && echo
    touch -d 2001-02-03 src/new && stat -c '%Y %s' src/new
    flock src/new echo locked
    stat -c '%n %A %u:%g %h' src src/*
    tar -cf t.tar src && mkdir out && tar -xf t.tar -C out && diff -r --no-dereference src/deep out/src/deep
    git init -q -b main g && cd g && echo x > f && git add f && git commit -q -m first
    git mv f h && git commit -q -m moved && git status --porcelain && git rev-parse HEAD && cd ..
    find . -name .git -prune -o -print | sort
    rmdir src/a 2>&1 || echo $?
    cat missing 2>&1 || echo $?
    rm -rf src out t.tar g && ls -A
"#;

#[test]
fn everyday_work_comes_out_alike_for_root() {
    World::new().same_as_bare(EVERYDAY, DEADLINE, &[]);
}

#[test]
fn everyday_work_comes_out_alike_for_an_ordinary_user() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.says_as_bare(EVERYDAY, DEADLINE);
}

/// There the view is mounted with the rights that an ordinary user has in a namespace of its own.
#[test]
fn everyday_work_comes_out_alike_in_a_user_namespace() {
    let mut world = World::apart_of_ordinary_user();
    world.start_broker([""; 0]);
    let gate = world.program("gate");
    let script = format!(
        r#"gate=$0 place=$1
        if [ $place = view ]; then
            "$gate" mount --foreground source view > said 2>&1 & server=$!
            until mountpoint -q view; do kill -0 $server || {{ cat said; exit 1; }}; done
        fi
        (cd $place && {EVERYDAY})
        if [ $place = view ]; then "$gate" umount view && wait $server; fi"#
    );
    let [expected, found] = ["twin", "view"].map(|place| {
        let run = world.git_script(world.home(), r#"exec unshare -Urm bash -euo pipefail -c "$@""#);
        run.args(["".as_ref(), script.as_ref(), gate.as_os_str(), place.as_ref()]).run().success()
    });
    assert_eq!(found, expected);
}

#[test]
fn acls_are_set_shown_inherited_and_obeyed_alike() {
    check(
        r"
        umask 077
        echo text > f && setfacl -m u:games:r,g:mail:rw,m::rw f && getfacl -c f
        mkdir -m 755 d && setfacl -d -m u:games:rwx,g::rx,o::r d && getfacl -c d
        touch d/f && mkdir d/sub && getfacl -c d/f d/sub d/sub
        (umask 0; touch d/g; mkfifo d/p) && getfacl -c d/g d/p && stat -c %a d/g d/f f
        chmod 600 f && getfacl -c f && setfacl -x u:games f && getfacl -c f
        setfacl -b f && getfacl -c f && stat -c %a f
        cp -a d e && getfacl -Rc e && setfacl -k e && getfacl -c e
        setfacl -m u:games:rwx d && setfacl -m u:games:rw d/f && chmod 755 .
        setpriv --reuid games --regid games --clear-groups bash -c 'echo more >> d/f; cat d/f; echo x > d/new; stat -c %U:%a d/new'
        setpriv --reuid mail --regid games --clear-groups bash -c 'cat d/sub/f d/f' 2>&1 || echo $?
        ",
    );
}

#[test]
fn a_name_has_255_bytes_of_any_kind_but_two() {
    check(
        r#"
        long=$(printf 'x%.0s' {1..255})
        echo text > $long && cat $long && mkdir d && mv $long d/ && ls d | wc -c && ln d/$long . && ln -s d/$long l && cat l
        for make in touch mkdir mkfifo "ln l" "mv l" "ln -s x"; do $make ${long}x 2>&1 || echo $?; done
        cat ${long}x 2>&1 || echo $?
        name=$(printf 'a\xff\xfe\n\t"'"'"' *\x01')
        echo bytes > "$name" && cat "$name" && mkdir "d/$name" && mv "$name" "d/$name/$name" && find d -name 'a*' | od -c
        "#,
    );
}

#[test]
fn extended_attributes_of_every_namespace_are_those_of_the_bare_directory() {
    check(
        r#"
        touch f && mkdir d && ln -s f l && mkfifo p && chmod 777 . d && chmod 666 f
        try='for name in user.x trusted.x security.x system.x other.x user. x; do
            for file in f d p; do
                setfattr -n $name -v "value of $1" $file 2>&1
                getfattr --only-values -n $name $file 2>&1 && echo
            done
            setfattr -h -n $name -v value l 2>&1
        done
        getfattr -hdm- f d p l
        setfattr -x user.x f 2>&1; setfattr -x trusted.x d 2>&1; setfattr -x user.none f 2>&1
        getfattr -dm- f d; true'
        bash -c "$try" 0 root
        setpriv --reuid games --regid games --clear-groups bash -c "$try" 0 games
        "#,
    );
}

#[test]
fn renames_take_the_flags_that_they_take_on_the_bare_directory() {
    check(
        r#"
        cat > rename.py <<'END'
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
for flags in range(9):  # NOREPLACE, EXCHANGE, WHITEOUT, and one that there is not
    for there in (False, True):
        for name, text in (("from", "one"), ("to", "two")):
            if name == "from" or there:
                open(name, "w").write(text)
        failed = libc.renameat2(-100, b"from", -100, b"to", flags)
        found = {name: os.lstat(name).st_mode for name in sorted(os.listdir()) if name != "rename.py"}
        print(flags, there, failed and errno.errorcode[ctypes.get_errno()], found)
        for name in found:
            os.unlink(name)
END
        python3 rename.py
        "#,
    );
}

/// The path of what lies there does not fit any system call, nor the broker's words.
#[test]
fn trees_deeper_than_a_path_can_name_are_worked_in() {
    check(
        r#"
        cat > deep.py <<'END'
import os, sys
name = "n" * 100
for _ in range(60):
    os.mkdir(name)
    os.chdir(name)
with open("f", "w") as f:
    f.write("text")
with open("f", "a") as f:
    f.write(" more")
os.rename("f", "g"); os.link("g", "h"); os.symlink("g", "l"); os.mkdir("d"); os.truncate("h", 6)
os.chmod("g", 0o600); os.setxattr("g", "user.x", b"y")
print(open("l").read(), sorted(os.listdir()), oct(os.stat("h").st_mode), os.stat("h").st_nlink)
print(os.getxattr("h", "user.x"), len(os.listdir("..")))
os.unlink("l"); os.rmdir("d")
END
        python3 deep.py
        find . -type f -printf '%f %s\n' | sort
        rm -rf n* && ls
        "#,
    );
}

/// The mount says nodev and nosuid: nodes of devices and bits are there, and do nothing.
#[test]
fn devices_are_not_opened_and_suid_bits_do_nothing() {
    let world = World::with_view(["--allow-other"]);
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755)).unwrap();
    world.says_as_bare(
        "mknod null c 1 3 && mknod -m 600 disk b 7 200 && stat -c '%F %t %T %a' null disk
         cp /usr/bin/id . && chmod 6755 id && stat -c %a id",
        DEADLINE,
    );
    let script = "cat null 2>&1 || true; { echo > null; } 2>&1 || true
        setpriv --reuid games --regid games --clear-groups ./id -u";
    let said = world.script(&world.view(), script).run().success();
    assert_eq!(said.matches("Permission denied").count(), 2, "{said}");
    assert_eq!(said.lines().last(), Some("5"), "{said}");
    world.looks_as_bare(&[]);
}

#[test]
fn holes_take_no_room() {
    check(
        "
        truncate -s 8M f && dd if=/dev/zero of=f bs=64K count=1 seek=50 conv=notrunc,fsync status=none
        cp --sparse=always f g && sync g && fallocate -l 1M h && fallocate -p -o 64K -l 128K h && sync h
        du -k f g h && stat -c '%n %s %b' f g h
        ",
    );
}

/// Watches in the view tell of what is done in the view, in the order in which it is done.
#[test]
fn watches_tell_of_what_is_done_in_the_view() {
    let world = World::new();
    let steps: &[&[&str]] = &[
        &["at", "0", "open", "rw+", "f"],
        &["at", "0", "write", "100", "1"],
        &["at", "0", "ftruncate", "10"],
        &["at", "0", "close"],
        &["at", "0", "open", "r", "f"],
        &["leave"],
        &["chmod", "f", "600"],
        &["truncate", "f", "5"],
        &["lsetxattr", "f", "user.x", "y", "any"],
        &["mkdir", "d"],
        &["move", "f", "d/f", "any"],
        &["move", "d/f", "g", "any"],
        &["link", "g", "h"],
        &["symlink", "g", "l"],
        &["unlink", "h"],
        &["rmdir", "d"],
    ];
    let [expected, found] = [world.twin(), world.view()].map(|dir| {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        let wanted = inotify::WatchFlags::ALL_EVENTS - inotify::WatchFlags::ACCESS;
        inotify::add_watch(&watch, &dir, wanted).unwrap();
        let mut actor = world.actor(&dir);
        for step in steps {
            actor.ask(*step).unwrap();
        }
        events(&watch)
    });
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(found, expected);
}

fn events(watch: &OwnedFd) -> Vec<String> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => seen.push(format!("{:?} {:?}", event.events(), event.file_name())),
            Err(Errno::AGAIN) => return seen,
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// A handle, as file servers keep one, leads to its file whatever its name, until it is removed.
#[test]
fn a_handle_leads_to_its_file_until_that_is_removed() {
    let world = World::new();
    world.seed("d/f", "text");
    let view = world.view();
    let handle = FileHandle::of(&view.join("d/f")).unwrap();
    let read = || -> Result<String, Errno> {
        let file = fs::File::from(handle.open(&view)?);
        Ok(std::io::read_to_string(file).unwrap())
    };
    assert_eq!(read().as_deref(), Ok("text"));
    fs::rename(view.join("d/f"), view.join("g")).unwrap();
    assert_eq!(read().as_deref(), Ok("text"));
    fs::remove_file(view.join("g")).unwrap();
    // The kernel tells of the last close a moment later.
    wait_until(SOON, "it leads nowhere", || read() == Err(Errno::STALE));
}

/// Numbers of files begin anew with each view: it must not lead to whichever has its number now.
#[test]
fn a_handle_of_an_earlier_view_leads_nowhere() {
    let mut world = World::new();
    let names = ["a", "b", "d/c", "d/e", "f"];
    names.iter().for_each(|name| world.seed(name, name));
    let [source, view] = [world.source(), world.view()];
    let handles = names.map(|name| FileHandle::of(&view.join(name)).unwrap());
    world.umount(&view);
    world.mount(&source, &view, [""; 0]);
    let _known = names.map(|name| fs::File::open(view.join(name)).unwrap());
    for (handle, name) in handles.iter().zip(names) {
        assert_eq!(handle.open(&view).err(), Some(Errno::STALE), "{name}");
    }
    let root = FileHandle::of(&view).unwrap();
    root.open(&view).unwrap();
}

/// A `struct file_handle` with room behind it.
#[repr(C)]
struct FileHandle {
    head: libc::file_handle,
    room: [u8; 128],
}

impl FileHandle {
    fn of(path: &Path) -> Result<FileHandle, Errno> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        let head = libc::file_handle { handle_bytes: 128, handle_type: 0, f_handle: [] };
        let (mut handle, mut mount) = (FileHandle { head, room: [0; 128] }, 0);
        // SAFETY: the path ends in NUL, and the handle has as much room as its head says.
        let failed = unsafe {
            let first = (&raw mut handle).cast();
            libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), first, &raw mut mount, 0)
        };
        if failed == 0 { Ok(handle) } else { Err(last_errno()) }
    }

    fn open(&self, mount: &Path) -> Result<OwnedFd, Errno> {
        let mount = fs::File::open(mount).unwrap();
        let first = (&raw const *self).cast_mut().cast();
        // SAFETY: the kernel reads the handle and its room, and makes a descriptor for us alone.
        unsafe {
            match libc::open_by_handle_at(mount.as_raw_fd(), first, libc::O_RDONLY) {
                -1 => Err(last_errno()),
                file => Ok(OwnedFd::from_raw_fd(file)),
            }
        }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()
}

#[test]
fn sockets_and_fifos_bring_processes_together() {
    check(
        r#"
        cat > talk.py <<'END'
import os, socket
server = socket.socket(socket.AF_UNIX)
server.bind("socket")
server.listen()
if os.fork() == 0:
    client = socket.socket(socket.AF_UNIX)
    client.connect("socket")
    client.send(b"over a socket")
    os._exit(0)
print(server.accept()[0].recv(100))
os.wait()
try:
    socket.socket(socket.AF_UNIX).bind("socket")
except OSError as error:
    print(error)
server.close()
try:
    socket.socket(socket.AF_UNIX).connect("socket")
except OSError as error:
    print(error)
END
        python3 talk.py && stat -c '%F %a' socket
        mkfifo fifo && (echo through a FIFO > fifo &) && cat fifo
        (for i in 1 2 3; do echo $i; done > fifo &) && while read -r line; do echo "got $line"; done < fifo
        sync . && sync -f fifo
        "#,
    );
}

/// As the layer below, and as the one that takes what is changed.
#[test]
fn an_overlay_has_a_view_as_either_of_its_layers() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::new();
    let script = r#"
        mkdir merged $lower $upper $upper/changed $upper/work && mkdir -p $lower/d $lower/e
        echo below > $lower/d/f && echo kept > $lower/e/g
        mount -t overlay overlay -o lowerdir=$lower,upperdir=$upper/changed,workdir=$upper/work merged
        cat merged/d/f && echo more >> merged/d/f && cat merged/d/f
        mv merged/d/f merged/h && rmdir merged/d && mkdir merged/d && ls -A merged/d && rm merged/e/g
        find merged | sort && find $upper/changed -printf '%P %y %m\n' | sort
        umount merged && cat $lower/d/f && rm -rf merged $lower $upper"#;
    let dirs = ["twin", "view"];
    let layers = dirs.iter().flat_map(|lower| dirs.map(|upper| (lower, upper)));
    let said: Vec<String> = layers
        .map(|(lower, upper)| {
            let layers = format!("lower={lower}/lower upper={upper}/upper");
            let run = world.command("unshare".as_ref()).args(["-m", "bash", "-euc"]);
            let said = run.args([format!("{layers}\n{script}")]).run().success();
            said.replace(&format!("{lower}/lower"), "LOWER")
                .replace(&format!("{upper}/upper"), "UPPER")
        })
        .collect();
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:#?}");
}

/// Each of these works on the bare directory, where its file system does it.
#[test]
fn what_a_view_does_not_do_is_refused() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::new();
    let script = r#"
        head -c 1M /dev/zero > f && chmod 600 f && sync f
        fallocate -c -l 4096 f 2>&1 || true
        fallocate -i -o 4096 -l 4096 f 2>&1 || true
        cp --reflink=always f g 2>&1 || true
        mkswap -q f && swapon f 2>&1 || true
        fstrim . 2>&1 || true
        python3 -c 'import fcntl; fcntl.ioctl(open("f"), 0xC020660B, bytes(32))' 2>&1 || true # FIEMAP"#;
    let said = world.script(&world.view(), script).run().success();
    assert_eq!(said.matches("fallocate failed: Operation not supported").count(), 2, "{said}");
    let trim = "the discard operation is not supported";
    let map = "[Errno 95] Operation not supported";
    for what in ["failed to clone", "swapon failed: Invalid argument", trim, map] {
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// There the kernel writes by itself, and it cannot be told whose rights count.
#[test]
fn a_fast_view_takes_set_id_bits_even_from_what_root_writes() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    for (mode, left) in [("default", "4755"), ("strict", "4755"), ("fast", "755")] {
        let world = World::with_view(["--mode", mode]);
        let script = "echo x > f && chmod 4755 f && echo y >> f && stat -c %a f";
        let said = world.script(&world.view(), script).run().success();
        assert_eq!(said.trim_end(), left, "{mode}");
    }
}

#[track_caller]
fn check(script: &str) {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::with_view(["--allow-other"]);
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755)).unwrap();
    world.same_as_bare(script, DEADLINE, &[]);
}
