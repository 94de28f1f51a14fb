//! Of the directory in which a broker keeps its journal.

use std::path::Path;

use crate::cli::doctor::Finding;
use crate::cli::doctor::facts::state::{Directory, Disk, Kind, State};

const DIRECTORY: &str = "state-dir";
const DISK: &str = "state-disk";
const JOURNAL: &str = "journal";

const MIB: u64 = 1 << 20;
/// With less free room grants will soon be refused.
const FREE_MIN: u64 = 16 * MIB;
/// The log of what happened may take so much, and what waits to be moved into it.
const FREE_AMPLE: u64 = 512 * MIB;
/// What others than the owner may do, and what of that changes something.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

pub fn all(state: &State) -> Vec<Finding> {
    match state {
        State::Unknown => vec![Finding::skip(DIRECTORY, "where it is cannot be told, see above")],
        State::Elsewhere => vec![Finding::skip(DIRECTORY, "the broker is not of this machine")],
        State::Closed(path, error) => {
            vec![Finding::skip(DIRECTORY, format!("{} is closed: {error}", path.display()))]
        }
        State::Absent(path, at) => {
            vec![absent(path, at), disk(at)]
        }
        State::There(directory) => {
            vec![there(directory), disk(&directory.disk), journal(directory)]
        }
    }
}

fn absent(path: &Path, disk: &Disk) -> Finding {
    let path = path.display();
    match disk.may_write {
        true => Finding::ok(DIRECTORY, format!("{path} is made when it is needed")),
        false => {
            let found = format!("{path} is not there, and this user may not make it");
            Finding::fail(DIRECTORY, found, format!("as root: `install -d -m 700 -o $USER {path}`"))
        }
    }
}

fn there(directory: &Directory) -> Finding {
    let Directory { path, mode, is_own, disk, .. } = directory;
    let path = path.display();
    if !is_own {
        return Finding::skip(DIRECTORY, format!("{path} is another user's"));
    }
    let close = || format!("`chmod 700 {path}`");
    if !disk.may_write {
        let found = format!("{path} cannot be written");
        return Finding::fail(DIRECTORY, found, format!("{}, or mount its disk to write", close()));
    }
    match (mode & OTHERS, mode & OTHERS_WRITE) {
        (0, _) => Finding::ok(DIRECTORY, format!("{path}, for its owner only")),
        (_, 0) => Finding::warn(DIRECTORY, format!("{path} can be read by others"), close()),
        (_, _) => Finding::fail(DIRECTORY, format!("{path} can be written by others"), close()),
    }
}

fn disk(disk: &Disk) -> Finding {
    let free = disk.free_bytes / MIB;
    let elsewhere = "keep the state elsewhere: --state-dir, or GATE_STATE_DIR";
    match (disk.free_bytes, disk.kind) {
        (..FREE_MIN, _) => Finding::fail(DISK, format!("{free} MiB free"), "make room"),
        (_, Kind::Network(name)) => {
            let found = format!("it is on a network ({name}), where a journal may be lost");
            Finding::warn(DISK, found, elsewhere)
        }
        (_, Kind::Memory) => {
            let found = "it is in memory, and gone when the machine restarts";
            Finding::warn(DISK, found, elsewhere)
        }
        (..FREE_AMPLE, Kind::Local) => {
            let found = format!("{free} MiB free, and the log may take 256 MiB");
            Finding::warn(DISK, found, "make room, or keep less: --audit-max-mib")
        }
        (_, Kind::Local) => Finding::ok(DISK, format!("{free} MiB free, on this machine")),
    }
}

fn journal(directory: &Directory) -> Finding {
    let path = directory.path.display();
    match directory.journal {
        None => Finding::ok(JOURNAL, "none yet"),
        Some(true) => Finding::ok(JOURNAL, "it can be written"),
        Some(false) if !directory.is_own => Finding::skip(JOURNAL, "it is another user's"),
        Some(false) => {
            let found = format!("{path}/journal.sqlite cannot be written");
            Finding::fail(JOURNAL, found, format!("as root: `chown -R $USER {path}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level::{self, Fail, Ok, Skip, Warn};

    const GIB: u64 = 1 << 30;

    fn on(kind: Kind) -> Disk {
        Disk { may_write: true, free_bytes: GIB, kind }
    }

    fn there() -> Directory {
        let disk = on(Kind::Local);
        Directory { path: "/s".into(), mode: 0o700, is_own: true, disk, journal: Some(true) }
    }

    #[track_caller]
    fn check(state: State, levels: &[Level], said: &str) {
        let findings = all(&state);
        let found: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
        assert_eq!(found, levels, "{findings:?}");
        let text = format!("{findings:?}");
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }

    #[test]
    fn a_state_directory_is_its_owners() {
        check(State::There(there()), &[Ok; 3], "owner only");
        let mode = |mode| State::There(Directory { mode, ..there() });
        check(mode(0o755), &[Warn, Ok, Ok], "`chmod 700 /s`");
        check(mode(0o770), &[Fail, Ok, Ok], "written by others");
        let closed = Disk { may_write: false, ..on(Kind::Local) };
        check(State::There(Directory { disk: closed, ..there() }), &[Fail, Ok, Ok], "cannot be");
        let foreign = Directory { is_own: false, mode: 0o755, journal: Some(false), ..there() };
        check(State::There(foreign), &[Skip, Ok, Skip], "another user's");
        let stuck = Directory { journal: Some(false), ..there() };
        check(State::There(stuck), &[Ok, Ok, Fail], "/s/journal.sqlite");
    }

    #[test]
    fn one_that_is_not_there_can_be_made_or_not() {
        check(State::Absent("/s".into(), on(Kind::Local)), &[Ok, Ok], "when it is needed");
        let closed = Disk { may_write: false, ..on(Kind::Local) };
        check(State::Absent("/s".into(), closed), &[Fail, Ok], "install -d -m 700");
        check(State::Elsewhere, &[Skip], "not of this machine");
        check(State::Unknown, &[Skip], "see above");
        let closed = State::Closed("/s".into(), std::io::ErrorKind::PermissionDenied.into());
        check(closed, &[Skip], "/s is closed");
    }

    #[test]
    fn its_disk_has_room_and_is_of_this_machine() {
        let disk = |disk| State::There(Directory { disk, ..there() });
        check(disk(on(Kind::Network("NFS"))), &[Ok, Warn, Ok], "(NFS)");
        check(disk(on(Kind::Memory)), &[Ok, Warn, Ok], "restarts");
        let free = |free_bytes| disk(Disk { free_bytes, ..on(Kind::Local) });
        check(free(GIB), &[Ok; 3], "1024 MiB free");
        check(free(100 * MIB), &[Ok, Warn, Ok], "100 MiB free");
        check(free(MIB), &[Ok, Fail, Ok], "make room");
    }
}
