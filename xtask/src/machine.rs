//! This machine: what it has, what it lacks, and how it is brought, with the user's consent.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::step::{self, Failure, output};

/// A Debian package and the file or program that tells that it is there.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    sign: &'static str,
}

const fn package(name: &'static str, sign: &'static str) -> Package {
    Package { name, sign }
}

/// What it takes to build Gate and to mount a view.
pub const TO_TRY: [Package; 4] = [
    package("fuse3", "fusermount3"),
    package("git", "git"),
    package("gcc", "cc"),
    package("libc6-dev", "/usr/include/stdio.h"),
];

/// What the tests need besides.
pub const TO_TEST: [Package; 23] = [
    package("acl", "setfacl"),
    package("attr", "getfattr"),
    package("bindfs", "bindfs"),
    package("binutils", "objdump"),
    package("bsdutils", "script"),
    package("chromium", "chromium"),
    package("fio", "fio"),
    package("fonts-dejavu-core", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
    package("g++", "c++"),
    package("groff-base", "groff"),
    package("libacl1-dev", "/usr/include/sys/acl.h"),
    package("make", "make"),
    package("nano", "nano"),
    package("python3", "python3"),
    package("python3-venv", "/usr/share/doc/python3-venv"),
    package("ripgrep", "rg"),
    package("rsync", "rsync"),
    package("sqlite3", "sqlite3"),
    package("stress-ng", "stress-ng"),
    package("systemd", "systemd-analyze"),
    package("tmux", "tmux"),
    package("util-linux", "setpriv"),
    package("vim", "vim"),
];

/// What encloses a run that measures.
pub const TO_ENCLOSE: [Package; 2] =
    [package("e2fsprogs", "/usr/sbin/mkfs.ext4"), package("util-linux", "setpriv")];

/// What a view is compared with, and what works in it.
pub const TO_COMPARE_VIEWS: [Package; 5] = [
    package("bindfs", "bindfs"),
    package("g++", "c++"),
    package("gocryptfs", "gocryptfs"),
    package("libfuse3-dev", "/usr/include/fuse3/fuse.h"),
    package("ripgrep", "rg"),
];

/// What buckets are compared with.
pub const TO_COMPARE_BUCKETS: [Package; 2] =
    [package("gocryptfs", "gocryptfs"), package("ripgrep", "rg")];

/// What turns are compared with.
pub const TO_COMPARE_TURNS: [Package; 1] = [package("etcd-server", "etcd")];

/// What stands in the way of the log.
pub const TO_CROWD: [Package; 1] = [package("sqlite3", "sqlite3")];

/// What looks into those who work.
pub const TO_PROFILE: [Package; 3] =
    [package("linux-perf", "perf"), package("ripgrep", "rg"), package("strace", "strace")];

/// A program from the Rust registry, kept in target/tools.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    name: &'static str,
}

impl Tool {
    /// A crate whose program has its name.
    pub const fn named(name: &'static str) -> Tool {
        Tool { name }
    }
}

/// The runner of the tests, the judge of dependencies, and the suites that judge the view.
pub const TOOLS: [Tool; 5] = [
    Tool::named("cargo-nextest"),
    Tool::named("cargo-deny"),
    Tool::named("cargo-fuzz"),
    Tool::named("pjdfstest"),
    Tool::named("fsx"),
];

const FUSE_DEVICE: &str = "/dev/fuse";

/// Returns the root of the repository.
pub fn repository() -> Result<PathBuf, Failure> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().map(Path::to_owned);
    root.ok_or_else(|| Failure::new("cannot find the repository", here.display()))
}

/// Returns the directory into which cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

/// Returns a cargo command that finds the tools of target/tools.
pub fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).env("PATH", path_with_tools());
    command
}

/// Brings what is missing and makes FUSE usable, asking first.
pub fn prepare(packages: &[Package], tools: &[Tool], yes: bool) -> Result<(), Failure> {
    let packages: Vec<&str> =
        packages.iter().filter(|p| !is_there(p.sign)).map(|p| p.name).collect();
    let tools: Vec<Tool> = tools.iter().filter(|t| !is_there(t.name)).copied().collect();
    let is_fuse_closed = !is_open_to_all(FUSE_DEVICE);

    let mut plan = Vec::new();
    if !packages.is_empty() {
        plan.push(format!("install with apt-get: {}", packages.join(" ")));
    }
    if !tools.is_empty() {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
        plan.push(format!("install with cargo into target/tools: {}", names.join(" ")));
    }
    if is_fuse_closed {
        plan.push(format!("let every user use FUSE: chmod 0666 {FUSE_DEVICE}"));
    }
    if plan.is_empty() {
        return Ok(());
    }
    consent(&plan, yes)?;
    install(&packages)?;
    for tool in tools {
        let root = target().join("tools");
        // Unoptimised: they build in half the time, and nobody waits for what they do.
        let words = ["install", "--quiet", "--locked", "--debug", tool.name, "--root"];
        step::run(cargo(&words).arg(root))?;
    }
    if is_fuse_closed { open_fuse() } else { Ok(()) }
}

/// Returns a command that runs as root: directly, or through sudo.
pub fn as_root(program: &str) -> Result<Command, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    if !is_there("sudo") {
        let failure = Failure::new(format!("cannot run `{program}` as root"), "there is no sudo");
        return Err(failure.hint("run the same command as root"));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Tells whether a program is in PATH or target/tools, or a file is at its path.
pub fn is_there(sign: &str) -> bool {
    if sign.starts_with('/') {
        return Path::new(sign).exists();
    }
    std::env::split_paths(&path_with_tools()).any(|dir| dir.join(sign).is_file())
}

fn consent(plan: &[String], yes: bool) -> Result<(), Failure> {
    for line in plan {
        println!("   will {line}");
    }
    if yes {
        return Ok(());
    }
    let refused =
        |cause| Failure::new("nothing was changed", cause).hint("run the same command with --yes");
    if !std::io::stdin().is_terminal() {
        return Err(refused("this is no terminal to ask at"));
    }
    print!("   go on? [Y/n] ");
    let mut answer = String::new();
    std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().read_line(&mut answer))
        .map_err(|error| Failure::new("cannot ask", error))?;
    match answer.trim() {
        "" | "y" | "Y" | "yes" => Ok(()),
        _ => Err(refused("you said no")),
    }
}

fn install(packages: &[&str]) -> Result<(), Failure> {
    if packages.is_empty() {
        return Ok(());
    }
    let hint = format!("install {} by hand", packages.join(" "));
    let apt = |words: &[&str]| -> Result<(), Failure> {
        let mut command = as_root("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]).args(words);
        step::run(&mut command)
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    // The lists of a fresh machine are empty or old: the first attempt tells.
    apt(&install)
        .or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
        .map_err(|failure| failure.hint(hint))
}

fn open_fuse() -> Result<(), Failure> {
    if !Path::new(FUSE_DEVICE).exists() {
        // A kernel with FUSE built in has no module to load, and a container may not load any.
        let _ = as_root("modprobe")?.args(["-q", "fuse"]).status();
    }
    if !Path::new(FUSE_DEVICE).exists() {
        let failure =
            Failure::new(format!("there is no {FUSE_DEVICE}"), "the kernel offers no FUSE");
        return Err(
            failure.hint("load the module `fuse`, or give the container --device /dev/fuse")
        );
    }
    step::run(as_root("chmod")?.args(["0666", FUSE_DEVICE]))
}

fn is_open_to_all(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o006 == 0o006)
}

fn path_with_tools() -> OsString {
    let tools = std::env::current_dir().unwrap_or_default().join(target()).join("tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([tools]);
    std::env::join_paths(dirs).unwrap_or(path)
}

/// Returns the triple of the machine that builds.
pub fn host() -> Result<String, Failure> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or_else(|| Failure::new("cannot tell this machine's triple", "rustc -vV has no host"))
}
