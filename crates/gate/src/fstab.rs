//! What mount(8) calls: `mount.gate` for `mount -t gate SOURCE MOUNTPOINT -o OPTIONS` and for lines of fstab,
//! `mount.fuse.gate` for the type that a view has in the table of mounts.
//!
//! Both are this program by another name. The words of mount(8) become words of `gate mount`, which runs
//! as a process of its own. What an option asks for is done, or comes true by itself, or is refused: a word
//! that is not understood is no reason to mount something else.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory as _;
use rustix::mount::{MountFlags, mount_remount};

use crate::cli::Cli;
use crate::failure::{Exit, Failure};
use crate::output;

/// What mount(8) takes for a wrong call …
const MISCALLED: Exit = Exit::Code(1);
/// … and for a mount that failed.
const FAILED: Exit = Exit::Code(32);

/// By these names mount(8) looks for a helper.
const NAMES: [&str; 2] = ["mount.gate", "mount.fuse.gate"];

/// Options that are for mount(8) and systemd, that say what holds in every view, or of times, which are those
/// of the source.
const OF_OTHERS: [&str; 33] = [
    "_netdev",
    "async",
    "atime",
    "auto",
    "comment",
    "default_permissions",
    "defaults",
    "diratime",
    "exec",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "rw",
    "silent",
    "strictatime",
    "user",
    "users",
];

/// As [`OF_OTHERS`], with a value: what the kernel and libmount write of a view that is mounted.
const OF_OTHERS_WITH_VALUE: [&str; 10] = [
    "blksize", "comment", "fsname", "group_id", "helper", "max_read", "rootmode", "subtype",
    "user", "user_id",
];

/// Flags of `gate mount` that are no options of a line of fstab.
const NO_OPTIONS: [&str; 5] = ["foreground", "root", "mount", "json", "help"];

/// What mount(8) asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    source: OsString,
    point: OsString,
    options: Vec<String>,
    /// Say what would be done, and do nothing.
    fake: bool,
    verbose: bool,
    /// Leave out options that are not understood.
    sloppy: bool,
}

/// What the options of a call come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Meant {
    flags: Vec<String>,
    read_only: bool,
    noexec: bool,
}

/// Tells whether mount(8) called.
pub fn is_called(words: &[OsString]) -> bool {
    let name = words.first().and_then(|word| Path::new(word).file_name());
    name.is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Does what mount(8) asks for.
pub fn run(words: &[OsString]) -> Result<Exit, Failure> {
    let call = Call::parse(words.get(1..).unwrap_or_default())?;
    let meant = call.meant(&gate_mount())?;
    let words = call.words(&meant);
    if call.verbose || call.fake {
        let shown: Vec<String> = words.iter().map(|word| word.display().to_string()).collect();
        output::say_line(output::printable(&format!("gate {}", shown.join(" "))));
    }
    if call.fake {
        return Ok(Exit::Success);
    }
    let program = std::env::current_exe().map_err(|error| call.failed(&error))?;
    let status = Command::new(program).arg0("gate").args(words).status();
    if !status.map_err(|error| call.failed(&error))?.success() {
        return Err(Failure::silent(FAILED));
    }
    if meant.noexec {
        call.forbid_programs(meant.read_only)?;
    }
    Ok(Exit::Success)
}

impl Call {
    fn parse(words: &[OsString]) -> Result<Call, Failure> {
        let mut call = Call::default();
        let mut places = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let letters = match word.to_str().and_then(|word| word.strip_prefix('-')) {
                Some(letters) if !letters.is_empty() => letters,
                _ => {
                    places.push(word.clone());
                    continue;
                }
            };
            for (at, letter) in letters.char_indices() {
                let mut value = || match &letters[at + letter.len_utf8()..] {
                    "" => words.next().and_then(|next| next.to_str()).unwrap_or_default(),
                    rest => rest,
                };
                match letter {
                    'o' => call.options.extend(split(value())),
                    't' => drop(value()),
                    'f' => call.fake = true,
                    'v' => call.verbose = true,
                    's' => call.sloppy = true,
                    'r' => call.options.push("ro".to_owned()),
                    'w' => call.options.push("rw".to_owned()),
                    'n' => {}
                    _ => return Err(miscalled(&format!("-{letter} is no flag of a mount helper"))),
                }
                if matches!(letter, 'o' | 't') {
                    break;
                }
            }
        }
        let Ok([source, point]) = <[OsString; 2]>::try_from(places) else {
            return Err(miscalled("a source and a mount point are needed"));
        };
        Ok(Call { source, point, ..call })
    }

    fn meant(&self, mount: &clap::Command) -> Result<Meant, Failure> {
        let mut meant = Meant::default();
        for option in &self.options {
            match option.as_str() {
                "ro" => meant.read_only = true,
                "rw" => meant.read_only = false,
                "noexec" => meant.noexec = true,
                "exec" => meant.noexec = false,
                "remount" => meant.set("--replace".to_owned()),
                "suid" | "dev" => {
                    output::say_line(
                        "set-id bits and devices do nothing in a view, whatever is asked for",
                    );
                }
                option if is_of_others(option) => {}
                option => match flag(option, mount) {
                    Some((flag, true)) => meant.flags.push(flag),
                    Some((flag, false)) => meant.set(flag),
                    None if self.sloppy => {}
                    None => return Err(unknown(option)),
                },
            }
        }
        Ok(meant)
    }

    /// Returns the words of `gate`; a path may begin as a flag does.
    fn words(&self, meant: &Meant) -> Vec<OsString> {
        let named = |flag: &str, path: &OsStr| [OsStr::new(flag), path].join(OsStr::new("="));
        let mut words = vec![OsString::from("mount")];
        words.extend(meant.flags.iter().map(OsString::from));
        words.extend(meant.read_only.then(|| "--read-only".into()));
        words.extend([named("--root", &self.source), named("--mount", &self.point)]);
        words
    }

    /// Lets no program of the view be run; a view for which that cannot be said does not stay.
    fn forbid_programs(&self, read_only: bool) -> Result<(), Failure> {
        let mut flags =
            MountFlags::BIND | MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
        flags.set(MountFlags::RDONLY, read_only);
        mount_remount(Path::new(&self.point), flags, c"").map_err(|errno| {
            let _ = gate_fuse::unmount(Path::new(&self.point));
            let what = format!("cannot mount {} with noexec", self.source.display());
            let hint = "only root may: in fstab, `user,exec` lets others mount without it";
            Failure::new(what, errno, hint).exit(FAILED)
        })
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        let what = format!("cannot mount {}", self.source.display());
        Failure::new(what, error, "`gate mount` tells more").exit(FAILED)
    }
}

impl Meant {
    /// Sets a flag of which there is one. The last wins: mount(8) says again, before what is asked for, what
    /// is in force.
    fn set(&mut self, flag: String) {
        let name = |flag: &str| flag.split('=').next().map(str::to_owned);
        self.flags.retain(|set| name(set) != name(&flag));
        self.flags.push(flag);
    }
}

fn gate_mount() -> clap::Command {
    let found = Cli::command().find_subcommand("mount").cloned();
    found.expect("gate has a command of that name")
}

/// Splits options at their commas, but for those between double quotes.
fn split(options: &str) -> Vec<String> {
    let mut is_quoted = false;
    let parts = options.split(|c| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    });
    let parts = parts.map(|part| part.replace('"', ""));
    parts.filter(|part| !part.is_empty()).collect()
}

fn is_of_others(option: &str) -> bool {
    match option.split_once('=') {
        _ if option.starts_with("x-") || option.starts_with("X-") => true,
        Some((name, _)) => OF_OTHERS_WITH_VALUE.contains(&name),
        None => OF_OTHERS.contains(&option),
    }
}

/// Returns an option as the flag of `gate mount` that bears its name, and whether there may be several of it.
fn flag(option: &str, mount: &clap::Command) -> Option<(String, bool)> {
    let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
    let name = name.replace('_', "-");
    let found = mount.get_arguments().find(|arg| arg.get_long() == Some(&name))?;
    let takes_value = found.get_action().takes_values();
    if found.is_hide_set() || NO_OPTIONS.contains(&&*name) || takes_value != value.is_some() {
        return None;
    }
    let flag = value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"));
    Some((flag, matches!(found.get_action(), clap::ArgAction::Append)))
}

fn unknown(option: &str) -> Failure {
    let cause = format!("a view has no option `{option}`");
    let hint = "`gate mount --help` lists its flags, which are options, too, as in `read_wait=5s`";
    Failure::new("cannot mount", cause, hint).exit(MISCALLED)
}

fn miscalled(cause: &str) -> Failure {
    let hint = "call it as `mount -t gate SOURCE MOUNTPOINT -o OPTIONS`";
    Failure::new("cannot understand what mount(8) says", cause, hint).exit(MISCALLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&str], expected: Result<&str, &str>) {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let outcome = Call::parse(&words).and_then(|call| {
            let meant = call.meant(&gate_mount())?;
            let shown = call.words(&meant).join(OsStr::new(" ")).into_string().unwrap();
            Ok(format!("{shown}{}", if meant.noexec { " noexec" } else { "" }))
        });
        match (outcome, expected) {
            (Ok(words), Ok(expected)) => assert_eq!(words, expected),
            (Err(failure), Err(cause)) => {
                assert!(failure.to_string().contains(cause), "{failure}");
                assert_eq!(failure.report(), MISCALLED);
            }
            (outcome, expected) => panic!("{words:?}: {outcome:?}, not {expected:?}"),
        }
    }

    #[test]
    fn what_mount_says_becomes_what_gate_mount_is_told() {
        let plain = "mount --root=/r --mount=/m";
        check(&["/r", "/m"], Ok(plain));
        check(&["/r", "/m", "-n", "-sv", "-o", "rw", "-t", "fuse.gate"], Ok(plain));
        check(&["-o", "ro", "/r", "/m"], Ok("mount --read-only --root=/r --mount=/m"));
        check(&["/r", "/m", "-r"], Ok("mount --read-only --root=/r --mount=/m"));
        check(&["/r", "/m", "-o", "ro", "-w"], Ok(plain));
        check(&["/r", "/m", "-oallow_other"], Ok("mount --allow-other --root=/r --mount=/m"));
        let options = "read_wait=5s,policy=*.x=none,policy=\"{a,b}=none\",remount";
        let flags = "--read-wait=5s --policy=*.x=none --policy={a,b}=none --replace";
        check(&["/r", "/m", "-o", options], Ok(&format!("mount {flags} --root=/r --mount=/m")));
    }

    #[test]
    fn of_an_option_that_is_said_again_the_last_wins() {
        let again = "remount,allow_other,read_wait=5s,allow-other,policy=a=none,read_wait=6s,policy=a=gated,remount";
        let flags = "--allow-other --policy=a=none --read-wait=6s --policy=a=gated --replace";
        check(&["/r", "/m", "-o", again], Ok(&format!("mount {flags} --root=/r --mount=/m")));
    }

    #[test]
    fn what_is_said_to_others_is_left_to_them() {
        let words = "defaults,noauto,nofail,_netdev,user,x-systemd.automount,X-mount.mkdir=0755,\
                     comment=x,nosuid,nodev,relatime,user_id=0,group_id=0,default_permissions";
        check(&["/r", "/m", "-o", words], Ok("mount --root=/r --mount=/m"));
        let user = "noexec,nosuid,nodev,user";
        check(&["/r", "/m", "-o", user], Ok("mount --root=/r --mount=/m noexec"));
        check(&["/r", "/m", "-o", "user,noexec,exec"], Ok("mount --root=/r --mount=/m"));
    }

    #[test]
    fn what_is_not_understood_is_refused_unless_that_was_said_to_be_well() {
        for option in ["colour=red", "foreground", "root=/x", "read_wait", "allow_other=1", "sync"]
        {
            let cause = format!("no option `{option}`");
            check(&["/r", "/m", "-o", option], Err(&cause));
            check(&["/r", "/m", "-s", "-o", option], Ok("mount --root=/r --mount=/m"));
        }
        check(&["/r"], Err("a source and a mount point"));
        check(&["/r", "/m", "/n"], Err("a source and a mount point"));
        check(&["/r", "/m", "-N", "/ns"], Err("-N is no flag"));
    }

    #[test]
    fn it_is_called_by_its_name() {
        let called = |word: &str| is_called(&[OsString::from(word)]);
        assert!(called("/sbin/mount.gate") && called("mount.fuse.gate"));
        assert!(!called("/usr/bin/gate") && !called("mount.gate/gate") && !is_called(&[]));
    }
}
