//! `cargo xtask dist`: what is handed out: the program, an archive with its papers, a Debian package, their sums.
//!
//! Everything comes from the program itself, its papers, too: one that exists already can be given, so
//! that a package is tried without building a release.

mod debian;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::machine;
use crate::step::{self, Failure, output, step};

/// The names by which mount(8) calls the program.
const HELPERS: [&str; 2] = ["mount.gate", "mount.fuse.gate"];
/// Where each shell looks for what completes its lines.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/gate"),
    ("zsh", "share/zsh/vendor-completions/_gate"),
    ("fish", "share/fish/vendor_completions.d/gate.fish"),
];
/// Whose unit, which, and where it is looked for.
const UNITS: [(&str, &str, &str); 4] = [
    ("--system", "--print=service", "lib/systemd/system/gate.service"),
    ("--system", "--print=socket", "lib/systemd/system/gate.socket"),
    ("--user", "--print=service", "lib/systemd/user/gate.service"),
    ("--user", "--print=socket", "lib/systemd/user/gate.socket"),
];

/// What is said on the command line.
#[derive(Debug, Default)]
struct Wanted {
    binary: Option<PathBuf>,
    out: Option<PathBuf>,
}

/// A program, and what it says and needs.
pub struct Program {
    path: PathBuf,
    version: String,
    arch: String,
    /// The oldest glibc with which it runs; none if it brings its own.
    glibc: Option<String>,
}

/// Makes all of it.
pub fn run(words: &[&str], callers_dir: &Path) -> Result<(), Failure> {
    let wanted = Wanted::parse(words, callers_dir)?;
    let out = wanted.out.unwrap_or_else(|| "dist".into());
    make_dir(&out)?;
    let out = out.canonicalize().map_err(|error| cannot_make(&out, error))?;
    let is_given = wanted.binary.is_some();
    let built = wanted.binary.map_or_else(|| step("build", build), Ok)?;
    let program = step("program", || Program::stripped(&built, &out.join("gate")))?;
    if !is_given && program.glibc.is_some() {
        return Err(Failure::new("the program still needs libraries", built.display()));
    }
    let home = tempfile::tempdir().map_err(|error| Failure::new("cannot make a tree", error))?;
    let tree = home.path().join("tree");
    step("papers", || lay(&program, &tree.join("usr")))?;
    let archive = step("archive", || archive(&program, &tree, &out))?;
    let package = step("package", || debian::package(&program, &tree, &out))?;
    let sums =
        output(Command::new("sha256sum").current_dir(&out).args(["gate", &archive, &package]))?;
    write(&out.join("SHA256SUMS"), &sums)?;
    println!("\n{} has\n{sums}", out.display());
    match &program.glibc {
        Some(version) => println!("gate {} needs glibc {version} or later", program.version),
        None => println!("gate {} needs no libraries", program.version),
    }
    Ok(())
}

impl Wanted {
    fn parse(words: &[&str], callers_dir: &Path) -> Result<Wanted, Failure> {
        let mut wanted = Wanted::default();
        for pair in words.chunks(2) {
            match pair {
                ["--binary", path] => wanted.binary = Some(callers_dir.join(path)),
                ["--out", path] => wanted.out = Some(callers_dir.join(path)),
                _ => {
                    let failure = Failure::new("cannot tell what to hand out", words.join(" "));
                    return Err(failure.hint("cargo xtask dist [--binary FILE] [--out DIR]"));
                }
            }
        }
        Ok(wanted)
    }
}

impl Program {
    /// Copies a program without what only debuggers read, and asks it what it is.
    fn stripped(built: &Path, to: &Path) -> Result<Program, Failure> {
        step::run(Command::new("strip").arg("-o").args([to, built]))?;
        set_mode(to, 0o755)?;
        let mut program = Program {
            path: to.to_owned(),
            version: String::new(),
            arch: String::new(),
            glibc: None,
        };
        let said = program.says(&["version", "--json"])?;
        let said: Value = serde_json::from_str(&said)
            .map_err(|error| Failure::new("cannot understand `gate version --json`", error))?;
        let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        program.version = word("version");
        program.arch = word("arch");
        program.glibc = newest_glibc(&output(Command::new("objdump").arg("-p").arg(to))?);
        Ok(program)
    }

    /// Returns what it says, wherever it is asked.
    fn says(&self, words: &[&str]) -> Result<String, Failure> {
        output(Command::new(&self.path).args(words).env_clear())
    }

    /// Returns the name of what it is packed in, without an ending.
    fn full_name(&self) -> String {
        let libc = if self.glibc.is_some() { "gnu" } else { "static" };
        format!("gate-{}-{}-linux-{libc}", self.version, self.arch)
    }
}

/// Builds it with all libraries inside, so that it runs on any Linux of its kind of machine.
fn build() -> Result<PathBuf, Failure> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let triple = said.lines().find_map(|line| line.strip_prefix("host: "));
    let triple = triple.ok_or_else(|| Failure::new("cannot tell for what rustc builds", &said))?;
    let mut cargo = machine::cargo(&["build", "--release", "--locked", "--package", "gate"]);
    // The flags are for the program alone if the target is named: what runs while it is built is not static.
    cargo.args(["--target", triple]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    step::run(&mut cargo)?;
    Ok(machine::target().join(triple).join("release/gate"))
}

/// Lays all but what is Debian's below a prefix.
fn lay(program: &Program, prefix: &Path) -> Result<(), Failure> {
    let bin = prefix.join("bin/gate");
    make_dir_of(&bin)?;
    fs::copy(&program.path, &bin).map_err(|error| cannot_make(&bin, error))?;
    set_mode(&bin, 0o755)?;
    for name in HELPERS {
        let link = prefix.join("sbin").join(name);
        make_dir_of(&link)?;
        symlink("../bin/gate", &link).map_err(|error| cannot_make(&link, error))?;
    }
    for (shell, place) in COMPLETIONS {
        write(&prefix.join(place), &program.says(&["completions", shell])?)?;
    }
    for (whose, print, place) in UNITS {
        let words = ["daemon", "install", print, "--program", "/usr/bin/gate", whose];
        write(&prefix.join(place), &program.says(&words)?)?;
    }
    let pages = prefix.join("share/man/man1");
    make_dir(&pages)?;
    program.says(&["man", &pages.display().to_string()])?;
    for page in files_of(&pages, "1")? {
        set_mode(&page, 0o644)?;
        compress(&page)?;
    }
    let papers = prefix.join("share/doc/gate");
    for paper in files_of(Path::new("docs"), "md")?.iter().chain([&"README.md".into()]) {
        let name = paper.file_name().expect("a paper has a name");
        write(&papers.join(name), &read(paper)?)?;
    }
    write(&papers.join("changelog"), &read("CHANGELOG.md".as_ref())?)?;
    compress(&papers.join("changelog"))?;
    let licences = ["LICENSE-MIT", "LICENSE-APACHE"].map(|name| read(name.as_ref()));
    let [mit, apache] = licences;
    let head = "Gate may be used by the terms of either licence, at your choice.\n";
    write(&papers.join("copyright"), &format!("{head}\n{}\n\n{}", mit?, apache?))
}

/// Packs the tree; units say where Debian has the program, and others write theirs by `gate daemon install`.
fn archive(program: &Program, tree: &Path, out: &Path) -> Result<String, Failure> {
    let name = program.full_name();
    let file = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file"]).arg(out.join(&file)).arg("--directory").arg(tree);
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--exclude=usr/lib"]);
    tar.arg(format!("--mtime=@{}", time()?))
        .arg(format!("--transform=s,^usr,{name},rS"))
        .arg("usr");
    step::run(&mut tar)?;
    Ok(file)
}

/// Returns the time of the latest commit, so that the same tree makes the same files.
fn time() -> Result<String, Failure> {
    let words = ["-c", "safe.directory=*", "log", "-1", "--format=%ct"];
    output(Command::new("git").args(words)).map(|time| time.trim().to_owned())
}

/// Finds the newest version in what `objdump -p` says a program needs.
fn newest_glibc(said: &str) -> Option<String> {
    let versions = said.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_"));
    let numbers = |version: &&str| -> Option<Vec<u32>> {
        version.split('.').map(|number| number.parse().ok()).collect()
    };
    versions.filter(|version| numbers(version).is_some()).max_by_key(numbers).map(str::to_owned)
}

fn files_of(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, Failure> {
    let entries =
        fs::read_dir(dir).map_err(|error| Failure::new(dir.display().to_string(), error))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    paths.sort();
    Ok(paths)
}

fn compress(file: &Path) -> Result<(), Failure> {
    step::run(Command::new("gzip").args(["-9", "-n"]).arg(file))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::new(path.display().to_string(), error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    make_dir_of(path)?;
    fs::write(path, text).map_err(|error| cannot_make(path, error))?;
    set_mode(path, 0o644)
}

fn make_dir_of(path: &Path) -> Result<(), Failure> {
    make_dir(path.parent().expect("a file lies in a directory"))
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| cannot_make(dir, error))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(|error| cannot_make(path, error))
}

fn cannot_make(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(format!("cannot make {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let said = "required from libc.so.6:\n 0x09 0x00 08 GLIBC_2.9\n 0x01 0x00 07 GLIBC_2.34\n\
                    0x02 0x00 06 GLIBC_2.2.5\n 0x03 0x00 05 GLIBC_PRIVATE\n";
        assert_eq!(newest_glibc(said).as_deref(), Some("2.34"));
        assert_eq!(newest_glibc("no symbols"), None);
    }
}
