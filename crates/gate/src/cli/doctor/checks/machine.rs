//! Of the machine and this user: what every view needs.

use gate_view::files_at_ease;
use rustix::io::Errno;

use crate::cli::doctor::Finding;
use crate::cli::doctor::facts::trial::Trial;
use crate::cli::doctor::facts::{Descriptors, Fusermount, Surroundings};
use crate::userns::{Bar, REMEDY_UNKNOWN};

/// The oldest kernel that will do, and the first that reads files for a view, and that tells whose
/// thread calls.
const KERNEL_MIN: (u32, u32) = (5, 15);
const KERNEL_READS: (u32, u32) = (6, 9);
const KERNEL_TELLS: (u32, u32) = (6, 13);
/// The limit to which a view of root's raises that of its open files.
const DESCRIPTORS_RAISED: u64 = 1 << 20;
/// A source with more directories is looked up anew all the time.
const WATCHES_FEW: u64 = 16_384;
/// A view that knows fewer files is always looking things up anew.
const FILES_FEW: usize = 8_192;

pub fn kernel(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let Some(version) = version(release) else {
        return Finding::warn(CHECK, format!("`{release}` is no version"), "is this Linux?");
    };
    let found = format!("Linux {release}");
    if version < KERNEL_MIN {
        return Finding::fail(CHECK, found, "boot Linux 5.15 or later");
    }
    match version < KERNEL_TELLS {
        true => Finding::ok(CHECK, format!("{found}; callers are looked up in /proc before 6.13")),
        false => Finding::ok(CHECK, found),
    }
}

pub fn device(device: &Result<(), Errno>, around: &Surroundings) -> Finding {
    const CHECK: &str = "fuse-device";
    match device {
        Ok(()) => Finding::ok(CHECK, "/dev/fuse can be used"),
        Err(errno) if around.in_container => {
            let found = format!("/dev/fuse cannot be used: {errno}");
            Finding::fail(CHECK, found, "pass it into the container: `--device /dev/fuse`")
        }
        Err(errno @ (Errno::NOENT | Errno::NODEV | Errno::NXIO)) => {
            let found = format!("/dev/fuse is not there: {errno}");
            Finding::fail(CHECK, found, "as root: `modprobe fuse`")
        }
        Err(errno) => {
            let found = format!("/dev/fuse cannot be used: {errno}");
            Finding::fail(CHECK, found, "as root: `chmod 666 /dev/fuse`")
        }
    }
}

pub fn fusermount(helper: Option<&Fusermount>, may_mount: bool) -> Finding {
    const CHECK: &str = "fusermount3";
    match helper {
        _ if may_mount => Finding::ok(CHECK, "not needed: this user may mount"),
        None => Finding::fail(CHECK, "it is not in PATH", "as root: `apt install fuse3`"),
        Some(Fusermount { path, is_setuid_root: true }) => {
            Finding::ok(CHECK, path.display().to_string())
        }
        Some(Fusermount { path, is_setuid_root: false }) => {
            let path = path.display();
            let found = format!("{path} may not mount: it is not setuid root");
            Finding::fail(
                CHECK,
                found,
                format!("as root: `chown root {path} && chmod 4755 {path}`"),
            )
        }
    }
}

pub fn trial(trial: &Trial) -> Finding {
    const CHECK: &str = "trial-view";
    match trial {
        Trial::Skipped => Finding::skip(CHECK, "nothing can be mounted here, see above"),
        Trial::Works => Finding::ok(CHECK, "mounted, written, read and unmounted"),
        Trial::Failed(failure) => {
            let line = |name| failure.line(name).unwrap_or_default();
            Finding::fail(CHECK, format!("{}: {}", line("error"), line("cause")), line("hint"))
        }
    }
}

/// Whether `gate run --view private` works.
pub fn private_views(may_mount: bool, namespaces: &Result<(), (Errno, Option<Bar>)>) -> Finding {
    const CHECK: &str = "private-views";
    match namespaces {
        _ if may_mount => {
            Finding::ok(CHECK, "this user may mount: `gate run --view private` works")
        }
        Ok(()) => Finding::ok(CHECK, "`gate run --view private` works, in a user namespace"),
        Err((_, Some(bar))) => Finding::warn(CHECK, bar.to_string(), bar.remedy()),
        Err((errno, None)) => {
            let found = format!("this user may not make a user namespace: {errno}");
            Finding::warn(CHECK, found, REMEDY_UNKNOWN)
        }
    }
}

pub fn allow_other(is_set: bool, may_mount: bool) -> Finding {
    const CHECK: &str = "allow-other";
    let mend = "to let others into your views, as root: `echo user_allow_other >> /etc/fuse.conf`";
    match (is_set, may_mount) {
        (true, _) => Finding::ok(CHECK, "everybody may mount with --allow-other"),
        (false, true) => Finding::ok(CHECK, "this user may mount with --allow-other"),
        (false, false) => {
            Finding::ok(CHECK, format!("this user's views are for this user only; {mend}"))
        }
    }
}

pub fn open_files(limits: &Descriptors) -> Finding {
    const CHECK: &str = "open-files";
    let Descriptors { soft, hard, most, may_raise } = *limits;
    let can_be = if may_raise && DESCRIPTORS_RAISED <= most { DESCRIPTORS_RAISED } else { 0 };
    let known = files_at_ease(hard.max(can_be));
    let found = format!(
        "limit {soft}, raised to {} for a view, which then knows {known} files at once",
        hard.max(can_be)
    );
    match known < FILES_FEW {
        true => {
            let mend = "raise `nofile` in /etc/security/limits.conf, or LimitNOFILE of its service";
            Finding::warn(CHECK, found, mend)
        }
        false => Finding::ok(CHECK, found),
    }
}

/// Whether the kernel reads and writes large files without asking the view.
pub fn backing(release: &str, may_back: bool) -> Finding {
    let found = match (version(release).is_some_and(|version| version >= KERNEL_READS), may_back) {
        (true, true) => "the kernel reads large files itself, and writes in views with --mode fast",
        (true, false) => "large files are read through the view: only root lets the kernel do it",
        (false, _) => "large files are read through the view: before Linux 6.9 the kernel cannot",
    };
    Finding::ok("backing", found)
}

pub fn watches(most: Result<Option<u64>, Errno>) -> Finding {
    const CHECK: &str = "watches";
    let most = match most {
        Ok(Some(most)) => most,
        Err(Errno::MFILE) => {
            let found = "another view of this user could watch nothing, and would ask for all anew";
            let mend = "as root: `sysctl fs.inotify.max_user_instances=1024`";
            return Finding::warn(CHECK, found, mend);
        }
        Ok(None) | Err(_) => {
            let found = "no directory can be watched: views ask for all anew";
            return Finding::warn(CHECK, found, "use a kernel with inotify");
        }
    };
    let found = format!("{most} directories of sources can be watched by this user");
    match most < WATCHES_FEW {
        true => Finding::warn(CHECK, found, "as root: `sysctl fs.inotify.max_user_watches=524288`"),
        false => Finding::ok(CHECK, found),
    }
}

/// A holder never blocks whom it waits for: the broker sees in /proc for whom it does.
pub fn kin(ptrace_scope: Option<u8>, may_trace: bool) -> Finding {
    let (exactly, roughly) = (
        "a broker of this user sees for which child or pipe a process waits",
        "a broker of this user sees that a process waits for a child or a pipe, not for which",
    );
    let found = match (ptrace_scope, may_trace) {
        (None | Some(0), _) | (Some(1 | 2), true) => exactly.to_owned(),
        (Some(scope), _) => format!("{roughly} (ptrace_scope {scope})"),
    };
    Finding::ok("kin", found)
}

pub fn surroundings(around: &Surroundings) -> Finding {
    let Surroundings { in_container, in_user_namespace, in_pid_namespace } = *around;
    let mut found = vec![];
    if in_container {
        found.push("in a container: views are for what runs in it, unless their mounts are shared");
    }
    if in_user_namespace {
        found.push("in a user namespace: its root owns no more than its user outside");
    }
    if in_pid_namespace {
        found.push("in a pid namespace: callers from outside never wait for long, they get EAGAIN");
    }
    if found.is_empty() {
        found.push("neither a container nor namespaces");
    }
    Finding::ok("surroundings", found.join("; "))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;
    use crate::failure::Failure;

    const BARE: Surroundings =
        Surroundings { in_container: false, in_user_namespace: false, in_pid_namespace: false };

    #[track_caller]
    fn check(finding: Finding, level: Level, said: &str) {
        assert_eq!(finding.level, level, "{finding:?}");
        let text = format!("{} {}", finding.found, finding.mend.unwrap_or_default());
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }

    #[test]
    fn the_kernel_must_be_new_enough() {
        check(kernel("5.14.21-150500"), Level::Fail, "5.15 or later");
        check(kernel("5.15.0"), Level::Ok, "looked up in /proc");
        check(kernel("6.12"), Level::Ok, "looked up in /proc");
        check(kernel("6.13.0-rc1"), Level::Ok, "Linux 6.13.0-rc1");
        assert!(!kernel("10.0").found.contains("/proc"));
        check(kernel(""), Level::Warn, "no version");
    }

    #[test]
    fn the_device_must_be_there_and_open_to_this_user() {
        check(device(&Ok(()), &BARE), Level::Ok, "can be used");
        check(device(&Err(Errno::NOENT), &BARE), Level::Fail, "modprobe fuse");
        check(device(&Err(Errno::ACCESS), &BARE), Level::Fail, "chmod 666");
        let container = Surroundings { in_container: true, ..BARE };
        check(device(&Err(Errno::PERM), &container), Level::Fail, "--device /dev/fuse");
    }

    #[test]
    fn who_may_not_mount_needs_a_helper_that_may() {
        let helper = |is_setuid_root| Fusermount { path: "/bin/f".into(), is_setuid_root };
        check(fusermount(None, true), Level::Ok, "not needed");
        check(fusermount(None, false), Level::Fail, "apt install fuse3");
        check(fusermount(Some(&helper(true)), false), Level::Ok, "/bin/f");
        check(fusermount(Some(&helper(false)), false), Level::Fail, "chmod 4755 /bin/f");
    }

    #[test]
    fn a_trial_is_told_with_its_cause_and_its_hint() {
        check(trial(&Trial::Works), Level::Ok, "written");
        check(trial(&Trial::Skipped), Level::Skip, "see above");
        let failure = Failure::new("cannot mount", "no room", "make some");
        let finding = trial(&Trial::Failed(failure));
        assert_eq!(finding, Finding::fail("trial-view", "cannot mount: no room", "make some"));
    }

    #[test]
    fn what_forbids_private_views_is_told_with_its_remedy() {
        check(private_views(true, &Ok(())), Level::Ok, "this user may mount");
        check(private_views(false, &Ok(())), Level::Ok, "in a user namespace");
        let forbidden = |bar| private_views(false, &Err((Errno::PERM, bar)));
        check(forbidden(Some(Bar::Clone)), Level::Warn, "unprivileged_userns_clone=1");
        check(forbidden(None), Level::Warn, "allow user namespaces");
    }

    #[test]
    fn others_are_let_in_by_root_or_where_that_is_allowed() {
        check(allow_other(true, false), Level::Ok, "everybody");
        check(allow_other(false, true), Level::Ok, "this user may");
        check(allow_other(false, false), Level::Ok, "user_allow_other >>");
    }

    #[test]
    fn few_open_files_are_few_known_files() {
        let limits = |hard, may_raise| Descriptors { soft: 1024, hard, most: 1 << 20, may_raise };
        check(open_files(&limits(1 << 20, false)), Level::Ok, "524288 files");
        check(open_files(&limits(4096, false)), Level::Warn, "knows 2048 files");
        check(open_files(&limits(4096, true)), Level::Ok, "524288 files");
        let low = Descriptors { most: 4096, ..limits(4096, true) };
        check(open_files(&low), Level::Warn, "2048 files");
    }

    #[test]
    fn who_reads_large_files_depends_on_kernel_and_user() {
        check(backing("6.9.0", true), Level::Ok, "the kernel reads");
        check(backing("6.12.1", false), Level::Ok, "only root");
        check(backing("6.8.12", true), Level::Ok, "before Linux 6.9");
    }

    #[test]
    fn few_watches_make_views_of_large_trees_slow() {
        check(watches(Ok(Some(524_288))), Level::Ok, "524288 directories");
        check(watches(Ok(Some(8_192))), Level::Warn, "sysctl");
        check(watches(Err(Errno::NOSYS)), Level::Warn, "kernel with inotify");
        check(watches(Err(Errno::MFILE)), Level::Warn, "max_user_instances");
    }

    #[test]
    fn what_is_seen_of_a_waiting_process_depends_on_who_may_trace_it() {
        check(kin(None, false), Level::Ok, "which child");
        check(kin(Some(0), false), Level::Ok, "which child");
        check(kin(Some(1), true), Level::Ok, "which child");
        check(kin(Some(1), false), Level::Ok, "not for which (ptrace_scope 1)");
        check(kin(Some(3), true), Level::Ok, "not for which (ptrace_scope 3)");
    }

    #[test]
    fn what_lies_around_is_told_with_what_it_means() {
        check(surroundings(&BARE), Level::Ok, "neither");
        let all =
            Surroundings { in_container: true, in_user_namespace: true, in_pid_namespace: true };
        for said in ["container", "user namespace", "EAGAIN"] {
            check(surroundings(&all), Level::Ok, said);
        }
    }
}
