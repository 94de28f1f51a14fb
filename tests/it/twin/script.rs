//! What scripts are made of: steps of some processes on few names, so that they meet; and now and
//! then all of them act at once, each on names of its own, so that no order makes a difference.
//!
//! Left out is what a view does not do: docs/semantics.md names it.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::select;

/// A part of a script; a line says what somebody does.
#[derive(Debug, Clone)]
pub enum Move {
    /// One acts, and nobody else does.
    Step(usize, String),
    /// Each does all of its lines, and none waits for another.
    AtOnce([Vec<String>; ACTORS]),
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Move::Step(who, line) => write!(f, "{who} {line}"),
            Move::AtOnce(lines) => {
                let all = lines.iter().enumerate();
                let mut all =
                    all.flat_map(|(who, lines)| lines.iter().map(move |line| (who, line)));
                all.try_for_each(|(who, line)| write!(f, "at once {who} {line}; "))
            }
        }
    }
}

pub const ACTORS: usize = 3;

const MOVES_MAX: usize = 40;
/// How much somebody does at once with others.
const LINES_MAX: usize = 12;

/// Names of files and directories, some of them links, some of them of nothing.
const PATHS: [&str; 14] = [
    "a", "b", "c", "l", "d", "d/a", "d/large", "d/large", "d/e", "d/e/a", "d/l", "d/l/b", "n/x",
    ".",
];
/// Files that all read at once.
const READ: [&str; 4] = ["a", "d/a", "d/large", "d/large"];

/// What somebody acts upon.
#[derive(Clone)]
struct Reach {
    paths: Vec<String>,
    /// Directories, and what some take for one, in which files without a name are made.
    places: Vec<String>,
    slots: Range<u8>,
}

impl Reach {
    /// What all share.
    fn common() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self { paths: owned(&PATHS), places: owned(&["d", "d/e", "a"]), slots: 0..3 }
    }

    /// What nobody but `who` touches: its own names, in directories that all share.
    fn own(who: usize) -> Self {
        let names = ["a", "b", "d", "d/a", "d/b"].map(|name| format!("{who}{name}"));
        let shared = ["d", "d/e", "d/l"];
        let elsewhere =
            shared.iter().flat_map(|dir| ["a", "b"].map(|name| format!("{dir}/{who}{name}")));
        let paths = names.into_iter().chain(elsewhere).collect();
        Self { paths, places: vec!["d".into(), "d/e".into(), format!("{who}d")], slots: 3..6 }
    }

    fn path(&self) -> impl Strategy<Value = String> + use<> {
        select(self.paths.clone())
    }

    fn place(&self) -> impl Strategy<Value = String> + use<> {
        select(self.places.clone())
    }

    fn slot(&self) -> impl Strategy<Value = u8> + use<> {
        self.slots.clone()
    }
}

const FLAGS: [&str; 4] = ["r", "w", "rw", "rw"];
const FURTHER_FLAGS: [&str; 14] =
    ["", "", "", "+", "+", "+!", "0", "+0", "a", "+a", "d", "f", "D", "+D0"];
/// Reserve; keep the size; punch; zero; zero and keep; and one that there is not.
const FALLOCATE: [u32; 6] = [0, 1, 3, 16, 17, 2];
const TIMES: [u64; 4] = [0, 1, 86_400, 900_000_000];

/// Returns all names that scripts use, but for those beneath a link: to look there is to read it.
pub fn names() -> Vec<String> {
    let all = (0..ACTORS).map(Reach::own).chain([Reach::common()]);
    let all: BTreeSet<String> = all.flat_map(|reach| reach.paths).collect();
    all.into_iter().filter(|name| !name.starts_with("d/l/")).collect()
}

/// Makes up scripts.
pub fn scripts() -> impl Strategy<Value = Vec<Move>> {
    let step = (0..ACTORS, line(&Reach::common())).prop_map(|(who, line)| Move::Step(who, line));
    let at_once = std::array::from_fn(|who| {
        let line = prop_oneof![4 => line(&Reach::own(who)), 1 => reading()];
        prop::collection::vec(line, 0..LINES_MAX)
    });
    let at_once: [_; ACTORS] = at_once;
    let either = prop_oneof![12 => step, 1 => at_once.prop_map(Move::AtOnce)];
    prop::collection::vec(either, 1..MOVES_MAX)
}

/// As [`scripts`], for views that differ in what becomes of set-id bits.
pub fn scripts_without_set_id_bits() -> impl Strategy<Value = Vec<Move>> {
    scripts_with(|line| line.replace(" 4755", " 755").replace(" 2770", " 770"))
}

/// As [`scripts`], for who looks at times: those of what is mapped change when others find fit.
pub fn scripts_without_mappings() -> impl Strategy<Value = Vec<Move>> {
    scripts_with(|line| if line.contains(" map ") { "umask 22".to_owned() } else { line })
}

fn scripts_with(instead: fn(String) -> String) -> impl Strategy<Value = Vec<Move>> {
    let changed = move |part| match part {
        Move::Step(who, line) => Move::Step(who, instead(line)),
        Move::AtOnce(lines) => {
            Move::AtOnce(lines.map(|lines| lines.into_iter().map(instead).collect()))
        }
    };
    scripts().prop_map(move |moves| moves.into_iter().map(changed).collect())
}

fn line(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        6 => opened(of),
        6 => on_bytes(of),
        3 => on_mapping(of),
        3 => on_attributes(of),
        5 => on_names(of),
        4 => on_attributes_by_path(of),
    ]
}

/// Reads what nobody changes meanwhile, in slots in which nobody does anything else.
fn reading() -> impl Strategy<Value = String> {
    let slot = || 6..8u8;
    prop_oneof![
        2 => (slot(), select(&READ[..])).prop_map(|(slot, path)| format!("at {slot} open r {path}")),
        1 => (slot(), count()).prop_map(|(slot, count)| format!("at {slot} read {count}")),
        2 => (slot(), place(), count())
            .prop_map(|(slot, at, count)| format!("at {slot} pread {at} {count}")),
        1 => slot().prop_map(|slot| format!("at {slot} map s 100000")),
        1 => (slot(), place(), count())
            .prop_map(|(slot, at, count)| format!("at {slot} load {at} {count}")),
    ]
}

fn opened(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        8 => (of.slot(), select(&FLAGS[..]), select(&FURTHER_FLAGS[..]), of.path())
            .prop_map(|(slot, how, more, path)| format!("at {slot} open {how}{more} {path}")),
        1 => (of.slot(), of.path()).prop_map(|(slot, path)| format!("at {slot} open P {path}")),
        1 => (of.slot(), select(&["rwt", "wt", "rwt!", "rt"][..]), of.place())
            .prop_map(|(slot, how, path)| format!("at {slot} open {how} {path}")),
        2 => of.slot().prop_map(|slot| format!("at {slot} close")),
        1 => Just("leave".to_owned()),
    ]
}

fn on_bytes(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        (of.slot(), count()).prop_map(|(slot, count)| format!("at {slot} read {count}")),
        (of.slot(), select(&["write", "writev"][..]), count(), 0..26u8)
            .prop_map(|(slot, verb, count, seed)| format!("at {slot} {verb} {count} {seed}")),
        (of.slot(), place(), count())
            .prop_map(|(slot, at, count)| format!("at {slot} pread {at} {count}")),
        (of.slot(), place(), count(), 0..26u8)
            .prop_map(|(slot, at, count, seed)| format!("at {slot} pwrite {at} {count} {seed}")),
        (of.slot(), select(&["set", "cur", "end", "data", "hole"][..]), place())
            .prop_map(|(slot, from, at)| format!("at {slot} seek {from} {at}")),
        (of.slot(), place()).prop_map(|(slot, at)| format!("at {slot} ftruncate {at}")),
        (of.slot(), select(&FALLOCATE[..]), place(), count())
            .prop_map(|(slot, how, at, count)| format!("at {slot} fallocate {how} {at} {count}")),
        (of.slot(), of.slot(), [place(), place()], count()).prop_map(
            |(from, to, [at, there], count)| format!("at {from} copy {to} {at} {count} {there}")
        ),
        (of.slot(), of.slot(), place(), count())
            .prop_map(|(from, to, at, count)| format!("at {from} sendfile {to} {at} {count}")),
        (of.slot(), select(&["fsync", "fdatasync"][..]))
            .prop_map(|(slot, verb)| format!("at {slot} {verb}")),
    ]
}

fn on_mapping(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        (of.slot(), select(&["s", "sw", "sw", "pw"][..]), select(&[1, 4096, 100_000][..]))
            .prop_map(|(slot, how, length)| format!("at {slot} map {how} {length}")),
        (of.slot(), place(), count())
            .prop_map(|(slot, at, count)| format!("at {slot} load {at} {count}")),
        (of.slot(), place(), count(), 0..26u8)
            .prop_map(|(slot, at, count, seed)| format!("at {slot} store {at} {count} {seed}")),
        (of.slot(), select(&["msync", "unmap"][..]))
            .prop_map(|(slot, verb)| format!("at {slot} {verb}")),
    ]
}

fn on_attributes(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        2 => of.slot().prop_map(|slot| format!("at {slot} fstat")),
        1 => (of.slot(), mode()).prop_map(|(slot, mode)| format!("at {slot} fchmod {mode}")),
        1 => (of.slot(), select(&[0, 5, 1000][..])).prop_map(|(slot, id)| format!("at {slot} fchown {id}")),
        1 => (of.slot(), select(&TIMES[..]), select(&TIMES[..])).prop_map(
            |(slot, access, modification)| format!("at {slot} futimens {access} {modification}")
        ),
        1 => (of.slot(), xattr()).prop_map(|(slot, name)| format!("at {slot} fsetxattr {name} value")),
        1 => (of.slot(), xattr()).prop_map(|(slot, name)| format!("at {slot} fgetxattr {name}")),
        1 => (of.slot(), of.path()).prop_map(|(slot, path)| format!("at {slot} name {path}")),
    ]
}

fn on_names(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        3 => (of.path(), of.path(), select(&["any", "any", "noreplace", "exchange"][..]))
            .prop_map(|(from, to, how)| format!("move {from} {to} {how}")),
        1 => (of.path(), of.path()).prop_map(|(from, to)| format!("link {from} {to}")),
        1 => (of.path(), of.path()).prop_map(|(to, path)| format!("symlink {to} {path}")),
        2 => of.path().prop_map(|path| format!("unlink {path}")),
        1 => of.path().prop_map(|path| format!("rmdir {path}")),
        2 => (of.path(), select(&["directory", "fifo", "socket", "device", "file"][..]), mode())
            .prop_map(|(path, kind, mode)| format!("make {path} {kind} {mode}")),
        2 => of.path().prop_map(|path| format!("entries {path}")),
        1 => of.path().prop_map(|path| format!("readlink {path}")),
    ]
}

fn on_attributes_by_path(of: &Reach) -> impl Strategy<Value = String> + use<> {
    prop_oneof![
        2 => (select(&["look", "lstat"][..]), of.path()).prop_map(|(verb, path)| format!("{verb} {path}")),
        1 => (of.path(), mode()).prop_map(|(path, mode)| format!("chmod {path} {mode}")),
        1 => (of.path(), select(&[0, 5][..]), select(&[0, 60][..]))
            .prop_map(|(path, uid, gid)| format!("lchown {path} {uid} {gid}")),
        1 => (of.path(), select(&TIMES[..]), select(&TIMES[..])).prop_map(
            |(path, access, modification)| format!("utimens {path} {access} {modification}")
        ),
        1 => (of.path(), place()).prop_map(|(path, at)| format!("truncate {path} {at}")),
        1 => (of.path(), xattr(), select(&["any", "create", "replace"][..]))
            .prop_map(|(path, name, how)| format!("lsetxattr {path} {name} text {how}")),
        1 => (of.path(), xattr()).prop_map(|(path, name)| format!("lremovexattr {path} {name}")),
        1 => of.path().prop_map(|path| format!("xattrs {path}")),
    ]
}

fn mode() -> impl Strategy<Value = &'static str> {
    select(&["644", "600", "755", "777", "444", "0", "4755", "2770", "1777"][..])
}

fn xattr() -> impl Strategy<Value = &'static str> {
    select(&["user.one", "user.two", "trusted.one", "system.none"][..])
}

/// Offsets about the limits of pages, of requests and of what the kernel reads by itself.
fn place() -> impl Strategy<Value = u64> {
    select(&[0, 0, 1, 4095, 4096, 5000, 65_536, 131_072, 262_144, 300_000][..])
}

fn count() -> impl Strategy<Value = u64> {
    select(&[0, 1, 10, 100, 4096, 5000, 20_000, 140_000][..])
}
