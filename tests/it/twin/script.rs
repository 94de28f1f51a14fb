//! What scripts are made of: steps of some processes on few names, so that they meet.
//!
//! Left out is what a view does not do: docs/semantics.md names it.

use proptest::prelude::*;
use proptest::sample::select;

/// Who acts, and what it does.
pub type Step = (usize, String);

pub const ACTORS: usize = 3;

const STEPS_MAX: usize = 60;

/// Names of files and directories, some of them links, some of them of nothing.
const PATHS: [&str; 14] = [
    "a", "b", "c", "l", "d", "d/a", "d/large", "d/large", "d/e", "d/e/a", "d/l", "d/l/b", "n/x",
    ".",
];

const FLAGS: [&str; 4] = ["r", "w", "rw", "rw"];
const FURTHER_FLAGS: [&str; 14] =
    ["", "", "", "+", "+", "+!", "0", "+0", "a", "+a", "d", "f", "D", "+D0"];
/// Reserve; keep the size; punch; zero; zero and keep; and one that there is not.
const FALLOCATE: [u32; 6] = [0, 1, 3, 16, 17, 2];
const TIMES: [u64; 4] = [0, 1, 86_400, 900_000_000];

/// Makes up scripts.
pub fn scripts() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..ACTORS, line()), 1..STEPS_MAX)
}

/// As [`scripts`], for views that differ in what becomes of set-id bits.
pub fn scripts_without_set_id_bits() -> impl Strategy<Value = Vec<Step>> {
    let without = |line: String| line.replace(" 4755", " 755").replace(" 2770", " 770");
    scripts()
        .prop_map(move |steps| steps.into_iter().map(|(who, line)| (who, without(line))).collect())
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => opened(),
        6 => on_bytes(),
        3 => on_mapping(),
        3 => on_attributes(),
        5 => on_names(),
        4 => on_attributes_by_path(),
    ]
}

fn opened() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (slot(), select(&FLAGS[..]), select(&FURTHER_FLAGS[..]), path())
            .prop_map(|(slot, how, more, path)| format!("at {slot} open {how}{more} {path}")),
        1 => (slot(), path()).prop_map(|(slot, path)| format!("at {slot} open P {path}")),
        1 => (slot(), select(&["rwt", "wt", "rwt!", "rt"][..]), select(&["d", "d/e", "a"][..]))
            .prop_map(|(slot, how, path)| format!("at {slot} open {how} {path}")),
        2 => slot().prop_map(|slot| format!("at {slot} close")),
        1 => Just("leave".to_owned()),
    ]
}

fn on_bytes() -> impl Strategy<Value = String> {
    prop_oneof![
        (slot(), count()).prop_map(|(slot, count)| format!("at {slot} read {count}")),
        (slot(), select(&["write", "writev"][..]), count(), 0..26u8)
            .prop_map(|(slot, verb, count, seed)| format!("at {slot} {verb} {count} {seed}")),
        (slot(), place(), count())
            .prop_map(|(slot, at, count)| format!("at {slot} pread {at} {count}")),
        (slot(), place(), count(), 0..26u8)
            .prop_map(|(slot, at, count, seed)| format!("at {slot} pwrite {at} {count} {seed}")),
        (slot(), select(&["set", "cur", "end", "data", "hole"][..]), place())
            .prop_map(|(slot, from, at)| format!("at {slot} seek {from} {at}")),
        (slot(), place()).prop_map(|(slot, at)| format!("at {slot} ftruncate {at}")),
        (slot(), select(&FALLOCATE[..]), place(), count())
            .prop_map(|(slot, how, at, count)| format!("at {slot} fallocate {how} {at} {count}")),
        (slot(), slot(), [place(), place()], count()).prop_map(
            |(from, to, [at, there], count)| format!("at {from} copy {to} {at} {count} {there}")
        ),
        (slot(), slot(), place(), count())
            .prop_map(|(from, to, at, count)| format!("at {from} sendfile {to} {at} {count}")),
        (slot(), select(&["fsync", "fdatasync"][..]))
            .prop_map(|(slot, verb)| format!("at {slot} {verb}")),
    ]
}

fn on_mapping() -> impl Strategy<Value = String> {
    prop_oneof![
        (slot(), select(&["s", "sw", "sw", "pw"][..]), select(&[1, 4096, 100_000][..]))
            .prop_map(|(slot, how, length)| format!("at {slot} map {how} {length}")),
        (slot(), place(), count())
            .prop_map(|(slot, at, count)| format!("at {slot} load {at} {count}")),
        (slot(), place(), count(), 0..26u8)
            .prop_map(|(slot, at, count, seed)| format!("at {slot} store {at} {count} {seed}")),
        (slot(), select(&["msync", "unmap"][..]))
            .prop_map(|(slot, verb)| format!("at {slot} {verb}")),
    ]
}

fn on_attributes() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => slot().prop_map(|slot| format!("at {slot} fstat")),
        1 => (slot(), mode()).prop_map(|(slot, mode)| format!("at {slot} fchmod {mode}")),
        1 => (slot(), select(&[0, 5, 1000][..])).prop_map(|(slot, id)| format!("at {slot} fchown {id}")),
        1 => (slot(), select(&TIMES[..])).prop_map(|(slot, time)| format!("at {slot} futimens {time}")),
        1 => (slot(), xattr()).prop_map(|(slot, name)| format!("at {slot} fsetxattr {name} value")),
        1 => (slot(), xattr()).prop_map(|(slot, name)| format!("at {slot} fgetxattr {name}")),
        1 => (slot(), path()).prop_map(|(slot, path)| format!("at {slot} name {path}")),
    ]
}

fn on_names() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (path(), path(), select(&["any", "any", "noreplace", "exchange"][..]))
            .prop_map(|(from, to, how)| format!("move {from} {to} {how}")),
        1 => (path(), path()).prop_map(|(from, to)| format!("link {from} {to}")),
        1 => (path(), path()).prop_map(|(to, path)| format!("symlink {to} {path}")),
        2 => path().prop_map(|path| format!("unlink {path}")),
        1 => path().prop_map(|path| format!("rmdir {path}")),
        2 => (path(), select(&["directory", "fifo", "socket", "device", "file"][..]), mode())
            .prop_map(|(path, kind, mode)| format!("make {path} {kind} {mode}")),
        2 => path().prop_map(|path| format!("entries {path}")),
        1 => path().prop_map(|path| format!("readlink {path}")),
    ]
}

fn on_attributes_by_path() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => (select(&["look", "lstat"][..]), path()).prop_map(|(verb, path)| format!("{verb} {path}")),
        1 => (path(), mode()).prop_map(|(path, mode)| format!("chmod {path} {mode}")),
        1 => (path(), select(&[0, 5][..]), select(&[0, 60][..]))
            .prop_map(|(path, uid, gid)| format!("lchown {path} {uid} {gid}")),
        1 => (path(), select(&TIMES[..])).prop_map(|(path, time)| format!("utimens {path} {time}")),
        1 => (path(), place()).prop_map(|(path, at)| format!("truncate {path} {at}")),
        1 => (path(), xattr(), select(&["any", "create", "replace"][..]))
            .prop_map(|(path, name, how)| format!("lsetxattr {path} {name} text {how}")),
        1 => (path(), xattr()).prop_map(|(path, name)| format!("lremovexattr {path} {name}")),
        1 => path().prop_map(|path| format!("xattrs {path}")),
    ]
}

fn slot() -> impl Strategy<Value = u8> {
    0..3u8
}

fn path() -> impl Strategy<Value = &'static str> {
    select(&PATHS[..])
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
