//! libfuse's `passthrough_hp`: an example, so Debian has it in source only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers::PASSTHROUGH;
use crate::machine;
use crate::step::{self, Failure, output};

/// Newer ones let the kernel pass reads and writes through, unless they are told not to.
const WITHOUT_KERNEL: &str = "--nopassthrough";

/// Returns where it is once it is built.
pub fn program() -> PathBuf {
    machine::target().join("tools/bin").join(PASSTHROUGH)
}

/// Returns the forms that this version has, each with its flags: nothing if there is none. The
/// one that does as a view does bears the plain name.
pub fn forms() -> Vec<(&'static str, Vec<&'static str>)> {
    let Ok(help) = Command::new(program()).arg("--help").output() else { return Vec::new() };
    if String::from_utf8_lossy(&help.stdout).contains(WITHOUT_KERNEL) {
        vec![(PASSTHROUGH, vec![WITHOUT_KERNEL]), ("hp, by kernel", vec![])]
    } else {
        vec![(PASSTHROUGH, vec![])]
    }
}

/// Builds it, unless it is there, from the source of this system's package.
pub fn build() -> Result<(), Failure> {
    if program().exists() {
        return Ok(());
    }
    let scratch = tempfile::tempdir().map_err(|e| Failure::new("cannot make a directory", e))?;
    let source = bring(scratch.path())?;
    let bin = machine::target().join("tools/bin");
    fs::create_dir_all(&bin).map_err(|e| Failure::new("cannot make target/tools", e))?;
    let mut compile = Command::new("c++");
    compile.args(["-std=c++17", "-O2", "-D_FILE_OFFSET_BITS=64", "-I/usr/include/fuse3"]);
    compile.arg(source.join("example/passthrough_hp.cc"));
    step::run(compile.args(["-lfuse3", "-lpthread", "-o"]).arg(program()))
}

/// Downloads and unpacks the source of libfuse, with lists of packages of our own: those of the
/// system stay as they are.
fn bring(dir: &Path) -> Result<PathBuf, Failure> {
    let fail = |error| Failure::new("cannot bring the source of libfuse", error);
    let format = "deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)";
    let ask = ["indextargets", "--format", format, "Identifier: Packages", "Origin: Debian"];
    let list = output(Command::new("apt-get").args(ask))?;
    fs::write(dir.join("sources.list"), list).map_err(fail)?;
    fs::create_dir_all(dir.join("lists/partial")).map_err(fail)?;
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-qq", "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Sandbox::User="]);
        for (what, name) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{what}={}", dir.join(name).display()));
        }
        step::run(command.args(words).current_dir(dir))
    };
    apt(&["update"])?;
    apt(&["source", "--tar-only", "fuse3"])?;
    let unpack = "mkdir source && tar -xf fuse3_*.orig.tar.* -C source --strip-components=1";
    step::run(Command::new("sh").args(["-c", unpack]).current_dir(dir))?;
    Ok(dir.join("source"))
}
