//! What `cargo xtask dist` makes, of the program that is tested here.

use std::fs;
use std::path::Path;

use gate_tests::World;

const FILES: [&str; 14] = [
    "./usr/bin/gate",
    "./usr/lib/systemd/system/gate.service",
    "./usr/lib/systemd/system/gate.socket",
    "./usr/lib/systemd/user/gate.service",
    "./usr/lib/systemd/user/gate.socket",
    "./usr/sbin/mount.fuse.gate -> ../bin/gate",
    "./usr/sbin/mount.gate -> ../bin/gate",
    "./usr/share/bash-completion/completions/gate",
    "./usr/share/doc/gate/copyright",
    "./usr/share/doc/gate/install.md",
    "./usr/share/fish/vendor_completions.d/gate.fish",
    "./usr/share/man/man1/gate-mount-add.1.gz",
    "./usr/share/man/man1/gate.1.gz",
    "./usr/share/zsh/vendor-completions/_gate",
];

#[test]
fn the_package_installs_works_and_goes_without_a_trace() {
    let world = World::bare();
    let dist = world.home().join("dist");
    let gate = world.program("gate");
    let words: [&std::ffi::OsStr; 3] = ["dist".as_ref(), "--binary".as_ref(), gate.as_os_str()];
    let made = world
        .command(&world.program("xtask"))
        .args(words)
        .args(["--out".as_ref(), dist.as_os_str()]);
    let said = made.run().success();
    assert!(said.contains("needs glibc") || said.contains("needs no libraries"), "{said}");
    let run = |dir: &Path, script: &str| world.script(dir, script).run().success();
    run(&dist, "sha256sum --check --strict SHA256SUMS; test \"$(wc -l <SHA256SUMS)\" = 3");
    check_contents(&run(&dist, "dpkg-deb --contents *.deb"));
    let control = run(&dist, "dpkg-deb --field *.deb");
    let version = env!("CARGO_PKG_VERSION");
    for line in ["Package: gate\n", &format!("Version: {version}\n"), "fuse3\n", "Architecture: a"]
    {
        assert!(control.contains(line), "{line}: {control}");
    }
    let unit =
        run(&dist, "dpkg-deb --fsys-tarfile *.deb | tar -xO ./usr/lib/systemd/system/gate.service");
    assert!(unit.contains("ExecStart=\"/usr/bin/gate\" daemon run\n"), "{unit}");

    let root = world.home().join("root");
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = "dpkg --root=\"$PWD/../root\" --log=/dev/null --force-script-chrootless --force-depends \
                --force-bad-path";
    run(&dist, &format!("{dpkg} --install *.deb"));
    let installed = world.command(&root.join("usr/bin/gate")).args(["version"]).run().success();
    assert!(installed.contains(version), "{installed}");
    let helper = world.command(&root.join("usr/sbin/mount.gate")).args(["-f", "/r", "/m"]).run();
    assert!(helper.stderr.contains("mount --root=/r --mount=/m"), "{helper}");
    let pages = root.join("usr/share/man/man1");
    let page = run(&pages, "zcat gate-hold.1.gz | groff -man -Tutf8 -ww 2>&1");
    assert!(page.contains("gate-hold") && !page.contains("warning"), "{page}");
    run(&dist, &format!("{dpkg} --verify gate; {dpkg} --purge gate"));
    let left = run(&root, "find . -path ./var/lib/dpkg -prune -o ! -type d -print");
    assert_eq!(left, "", "nothing is left");
    assert!(!root.join("usr").exists(), "no directory, either");

    let prefix = world.home().join("prefix");
    fs::create_dir(&prefix).unwrap();
    run(&dist, "tar -xf gate-*.tar.gz -C ../prefix --strip-components=1");
    let unpacked = world.command(&prefix.join("sbin/mount.gate")).args(["-f", "/r", "/m"]).run();
    assert!(unpacked.stderr.contains("mount --root=/r --mount=/m"), "{unpacked}");
}

/// All belongs to root, and nobody else may write to it.
fn check_contents(listed: &str) {
    for file in FILES {
        assert!(listed.lines().any(|line| line.ends_with(&format!(" {file}"))), "{file}: {listed}");
    }
    for line in listed.lines() {
        let mut words = line.split_whitespace();
        let (mode, owner) = (words.next().unwrap(), words.next().unwrap());
        let fine = ["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx"];
        assert!(owner == "root/root" && fine.contains(&mode), "{line}");
    }
}
