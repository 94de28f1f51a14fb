//! Suites that others wrote judge the view: pjdfstest, fsx, fio and stress-ng.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use gate_tests::World;
use gate_tests::run::Run;
use gate_tests::world::Standing;

use crate::buckets;

const DEADLINE: Duration = Duration::from_secs(120);

/// For what the long tier makes longer.
const LONG: Duration = Duration::from_secs(1200);

/// The dummy users are those of every Debian; the nap is above a tick of the file system's clock.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// So many cases pass at least: all but those that mount the directory anew, which is not allowed, and
/// [`TOLD_BY_THE_TYPE`].
const PASSED_AS_ROOT: usize = 380;

/// Many of them want to be root, or to be several users.
const PASSED_AS_OTHERS: usize = 240;

/// Leaves itself out in a view: how many links a file may have is what the C library knows of the type
/// of a file system.
const TOLD_BY_THE_TYPE: &str = "link::link_count_max";

/// Of what a bucket leaves out (docs/buckets.md) each kind is tried in many ways.
const SPECIAL: [&str; 6] = ["mkfifo::", "mknod::", "::fifo", "::char", "::block", "::socket"];

/// What fails in a bucket, and why: that is all.
const NOT_IN_A_BUCKET: [&str; 11] = [
    // All of it is its user's.
    "chmod::clear_isgid_bit",
    "link::share_metadata::regular",
    "mkdir::uid_gid_eq_euid_egid",
    "open::uid_gid_eq_euid_egid",
    // A directory counts as one link.
    "rename::updates_link_parent",
    // A file has one time.
    "utimensat::changes_timestamps::dir",
    "utimensat::changes_timestamps::regular",
    "utimensat::follow_symlink",
    "utimensat::subsecond",
    "utimensat::utime_omit",
    "utimensat::y2038",
];

/// So many cases pass in one at least.
const PASSED_IN_A_BUCKET: usize = 195;

/// Every operation, the ones that are off by default too; files so small that they meet, and large
/// enough for the kernel to serve them itself. Nowhere can nothing be allocated.
const FSX: &str = "
flen = 262144
[opsize]
min = 1
[weights]
close_open = 5
truncate = 5
invalidate = 1
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 2
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
";

/// Left out of the class `filesystem` of stress-ng: what works elsewhere than where it is told to
/// (bind-mount, binderfs, dup, eventfd, fanotify, io, ioprio, procfs), a mixture of all others
/// (iomix), what takes its own time (chdir), and what a view has not (fiemap, verity).
const NOT_STRESSED: &str =
    "bind-mount,binderfs,chdir,dup,eventfd,fanotify,fiemap,io,iomix,ioprio,procfs,verity";

/// Those of that class that end by themselves, soon, after a number of operations: a clock that told
/// so many at once to stop would interrupt calls that wait.
const STRESSED_AT_ONCE: [&str; 14] = [
    "access",
    "chmod",
    "copy-file",
    "dentry",
    "dir",
    "fcntl",
    "flock",
    "getdent",
    "locka",
    "lockofd",
    "rename",
    "touch",
    "utime",
    "xattr",
];

#[test]
fn pjdfstest_as_root_has_no_failure() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::with_view(["--allow-other"]);
    open_to_all(&world);
    let outcome = pjdfstest(&world, &world.view()).run();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stdout.contains("Summary: 0 failed"), "{outcome}");
    let passed = passed(&outcome.stdout).len();
    assert!(passed >= PASSED_AS_ROOT, "{passed}: {outcome}");
}

#[test]
fn pjdfstest_as_an_ordinary_user_fails_nothing_that_the_bare_directory_passes() {
    pjdfstest_as_on_the_bare_directory(Standing::OrdinaryUser);
}

#[test]
fn pjdfstest_in_a_user_namespace_fails_nothing_that_the_bare_directory_passes() {
    pjdfstest_as_on_the_bare_directory(Standing::UserNamespace);
}

#[track_caller]
fn pjdfstest_as_on_the_bare_directory(standing: Standing) {
    let world = World::with_view_of(standing, [""; 0]);
    let [expected, found] = [world.twin(), world.view()].map(|dir| {
        let outcome = pjdfstest(&world, &dir).run();
        assert!(outcome.stdout.contains("Summary: "), "{outcome}");
        passed(&outcome.stdout)
    });
    assert!(expected.len() >= PASSED_AS_OTHERS, "{expected:?}");
    let lost: Vec<_> =
        expected.difference(&found).filter(|name| *name != TOLD_BY_THE_TYPE).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn pjdfstest_fails_nothing_in_a_bucket_but_what_that_leaves_out() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let (world, _) = buckets::mounted::world(Standing::Runner);
    open_to_all(&world);
    fs::set_permissions(world.view(), fs::Permissions::from_mode(0o777)).unwrap();
    let outcome = pjdfstest(&world, &world.view()).run();
    let is_special = |name: &str| SPECIAL.iter().any(|special| name.contains(special));
    let failed = ended(&outcome.stdout, " FAILED");
    let failed: Vec<_> = failed.iter().filter(|name| !is_special(name)).collect();
    assert_eq!(failed, NOT_IN_A_BUCKET.iter().collect::<Vec<_>>(), "{outcome}");
    let passed = passed(&outcome.stdout).len();
    assert!(passed >= PASSED_IN_A_BUCKET, "{passed}: {outcome}");
    buckets::mounted::end(&world);
}

/// In each mode, with loads and stores through mappings and without.
#[test]
fn fsx_does_twenty_thousand_operations() {
    let each = gate_tests::scaled(20_000 / 6, 100_000);
    fsx(Standing::Runner, &["default", "strict", "fast"], each);
}

#[test]
fn fsx_as_an_ordinary_user_does_its_operations() {
    fsx(Standing::OrdinaryUser, &["default", "strict", "fast"], gate_tests::scaled(500, 100_000));
}

#[test]
fn fsx_in_a_user_namespace_does_its_operations() {
    fsx(Standing::UserNamespace, &["default", "strict", "fast"], gate_tests::scaled(500, 100_000));
}

#[track_caller]
fn fsx(standing: Standing, modes: &[&str], operations: usize) {
    let seed = (gate_tests::dice::seed() >> 1).to_string();
    for mode in modes {
        let world = World::with_view_of(standing, ["--mode", mode]);
        for (name, weights) in [("mapped", ""), ("unmapped", "mapread = 0\nmapwrite = 0\n")] {
            let config = world.home().join("fsx.toml");
            fs::write(&config, [FSX, weights].concat()).unwrap();
            let run = world
                .command(&world.program("fsx"))
                .args(["-N", &operations.to_string(), "-S", &seed, "-P"])
                .args([world.home(), "-f".as_ref(), &config, &world.view().join(name)]);
            let said = run.within(LONG).run().success();
            assert!(said.contains("All operations completed"), "{mode} {name}: {said}");
        }
    }
}

/// Sequential and random, mapped and not: what was written is read back, by its checksums.
#[test]
fn fio_reads_back_what_it_wrote() {
    fio(Standing::Runner, gate_tests::scaled(4, 256));
}

#[test]
fn fio_as_an_ordinary_user_and_in_a_user_namespace_reads_back_what_it_wrote() {
    for standing in [Standing::OrdinaryUser, Standing::UserNamespace] {
        fio(standing, gate_tests::scaled(1, 256));
    }
}

#[track_caller]
fn fio(standing: Standing, megabytes: usize) {
    let world = World::with_view_of(standing, [""; 0]);
    let size = format!("--size={megabytes}m");
    for (engine, work) in [("psync", "randwrite"), ("mmap", "randwrite"), ("libaio", "write")] {
        let job =
            [format!("--name={engine}"), format!("--ioengine={engine}"), format!("--rw={work}")];
        let run = world.command("fio".as_ref()).args(job).args([
            &size,
            "--bsrange=512-64k",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--numjobs=2",
            "--minimal",
        ]);
        run.dir(world.view()).within(LONG).run().success();
    }
}

#[test]
fn what_stresses_file_systems_ends_well_in_a_view() {
    let seconds = gate_tests::scaled(1, 15).to_string();
    let args = ["--class", "filesystem", "--exclude", NOT_STRESSED, "--sequential", "1"];
    stress(Standing::Runner, args.into_iter().chain(["--timeout", &seconds]));
}

#[test]
fn what_stresses_file_systems_ends_well_in_views_of_an_ordinary_user() {
    let operations = gate_tests::scaled(50, 5_000).to_string();
    let each =
        |name| [format!("--{name}"), "1".into(), format!("--{name}-ops"), operations.clone()];
    for standing in [Standing::OrdinaryUser, Standing::UserNamespace] {
        stress(standing, STRESSED_AT_ONCE.iter().flat_map(each));
    }
}

#[track_caller]
fn stress<S: AsRef<OsStr>>(standing: Standing, args: impl IntoIterator<Item = S>) {
    let world = World::with_view_of(standing, [""; 0]);
    let run = world.command("stress-ng".as_ref()).args(args);
    let run = run.args(["--temp-path", ".", "--oomable"]);
    let outcome = run.dir(world.view()).within(LONG).run();
    // Who is told to stop while a file can only be appended to leaves it so, and it cannot be removed.
    world.script(&world.source(), "chattr -R -f -ia . || true").run().success();
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("successful run"), "{outcome}");
}

fn pjdfstest(world: &World, dir: &Path) -> Run {
    let config = world.home().join("pjdfstest.toml");
    fs::write(&config, PJDFSTEST).unwrap();
    world
        .command(&world.program("pjdfstest"))
        .args(["-c".as_ref(), config.as_os_str(), "-p".as_ref(), dir.as_ref()])
        // Its users may not read the home of the one who runs the tests.
        .args(["-s".as_ref(), Path::new("/dev/shm")])
        .env("RUST_BACKTRACE", "0")
        .dir("/")
        .within(DEADLINE)
}

fn passed(said: &str) -> BTreeSet<String> {
    ended(said, " ok")
}

fn ended(said: &str, how: &str) -> BTreeSet<String> {
    let ended = said.lines().filter(|line| line.trim_end().ends_with(how));
    ended.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Other users reach the view only through a home that lets them pass.
fn open_to_all(world: &World) {
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755)).unwrap();
}
