//! The Debian package, made by dpkg-deb of a tree and a few words.

use std::path::Path;
use std::process::Command;

use super::{Program, make_dir, set_mode, time, write};
use crate::step::{self, Failure, output};

/// Where dpkg-deb looks for what is said of a package.
const CONTROL: &str = "DEBIAN";

/// What is done when the package comes and goes. Where the package is for another root, and where systemd does not
/// run, nothing is.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", "systemctl daemon-reload || true"),
    // Views stay: the daemon hands them over, and they end when they are unmounted.
    (
        "prerm",
        "if [ \"$1\" = remove ]; then systemctl disable --quiet --now gate.socket gate.service || true; fi",
    ),
    ("postrm", "systemctl daemon-reload || true"),
];

/// Packs the tree, and returns the name of the package.
pub fn package(program: &Program, tree: &Path, out: &Path) -> Result<String, Failure> {
    let arch = arch_of(&program.arch)?;
    let dir = tree.join(CONTROL);
    make_dir(&dir)?;
    write(&dir.join("control"), &control(program, arch, size_of(tree)?))?;
    let sums = "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    let sums = output(Command::new("sh").current_dir(tree).args(["-c", sums]))?;
    write(&dir.join("md5sums"), &sums)?;
    for (name, line) in SCRIPTS {
        let is_alive = "[ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]";
        let script = format!("#!/bin/sh\nset -e\nif {is_alive}; then\n    {line}\nfi\n");
        write(&dir.join(name), &script)?;
        set_mode(&dir.join(name), 0o755)?;
    }
    let file = format!("gate_{}_{arch}.deb", program.version);
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zgzip", "--build"]).arg(tree).arg(out.join(&file));
    step::run(pack.env("SOURCE_DATE_EPOCH", time()?))?;
    Ok(file)
}

fn control(program: &Program, arch: &str, size_kib: u64) -> String {
    let version = &program.version;
    let libc = program.glibc.as_ref();
    let libc = libc.map(|oldest| format!("libc6 (>= {oldest}), libgcc-s1, ")).unwrap_or_default();
    format!(
        "Package: gate\n\
         Version: {version}\n\
         Architecture: {arch}\n\
         Maintainer: The Gate project <gate@localhost>\n\
         Installed-Size: {size_kib}\n\
         Depends: {libc}fuse3\n\
         Section: utils\n\
         Priority: optional\n\
         Description: lets people, editors, scripts and agents take turns on files\n \
         Gate shows a directory through a file system in which every open takes its\n \
         fair turn: many readers or one writer, first come, first granted.\n"
    )
}

/// Returns what Debian calls a machine.
fn arch_of(arch: &str) -> Result<&'static str, Failure> {
    match arch {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        _ => Err(Failure::new("cannot make a package", format!("no Debian is known for {arch}"))),
    }
}

fn size_of(tree: &Path) -> Result<u64, Failure> {
    let said = output(Command::new("du").args(["-sk", "usr"]).current_dir(tree))?;
    let size = said.split_whitespace().next().and_then(|size| size.parse().ok());
    size.ok_or_else(|| Failure::new("cannot tell how large the package is", said))
}
