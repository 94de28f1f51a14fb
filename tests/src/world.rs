//! One test's world: directories, environment, broker and views, and their end.

mod end;
mod namespace;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Sender, channel};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::actor::Actor;
use crate::http::Http;
use crate::kernel::{self, WORLD_VARIABLE};
use crate::run::{Run, Running};
use crate::wait::{SOON, wait_until};
use namespace::Namespace;

/// Below the range from which the kernel takes ports for outgoing connections: a client that
/// keeps trying a port of that range while nobody listens ends up connected to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// An ordinary user that every Debian has.
pub const ORDINARY_USER: User = User { uid: 5, gid: 60 };

/// Whose processes act in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// By what right the processes of a world act and mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// That of whoever runs the tests, who is root but for the tests that do without.
    Runner,
    /// An ordinary user's, by fusermount3.
    OrdinaryUser,
    /// That of an ordinary user who is root in a user namespace, and mounts there.
    UserNamespace,
}

impl Standing {
    /// All there are.
    pub const ALL: [Standing; 3] = [Self::Runner, Self::OrdinaryUser, Self::UserNamespace];
}

/// A home of its own, what runs in it, and nothing of it left at the end.
pub struct World {
    views: Vec<View>,
    broker: Option<Running>,
    user: Option<User>,
    variables: BTreeMap<&'static str, Option<String>>,
    port: u16,
    watchdog: Option<Sender<()>>,
    namespace: Option<Namespace>,
    home: TempDir,
}

struct View {
    point: PathBuf,
    server: Running,
}

impl World {
    /// Makes a world with a broker and a view of its source.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self::with_view([""; 0])
    }

    /// Makes a world with a broker and a view that is mounted with further arguments.
    #[must_use]
    #[track_caller]
    pub fn with_view<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::with_view_of(Standing::Runner, args)
    }

    /// Makes a world of that standing, with a broker and a view of its source.
    #[must_use]
    #[track_caller]
    pub fn with_view_of<S: AsRef<OsStr>>(
        standing: Standing,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut world = Self::bare_of(standing);
        world.start_broker([""; 0]);
        let [source, view] = [world.source(), world.view()];
        world.mount(&source, &view, args);
        world
    }

    /// Makes a world in which nothing runs yet.
    #[must_use]
    pub fn bare() -> Self {
        Self::make(None)
    }

    /// Makes a world of that standing, in which nothing runs yet.
    #[must_use]
    #[track_caller]
    pub fn bare_of(standing: Standing) -> Self {
        match standing {
            Standing::Runner => Self::bare(),
            Standing::OrdinaryUser => Self::bare_of_ordinary_user(),
            Standing::UserNamespace => {
                let mut world = Self::apart_of_ordinary_user();
                world.namespace = Some(Namespace::new(world.command("unshare".as_ref())));
                world
            }
        }
    }

    /// Makes a world in which nothing runs yet, in a tree of mounts of its own: for tests whose
    /// private views live long.
    ///
    /// A private view begins with a copy of all mounts there are, those of other tests' views too,
    /// and what has a copy does not end.
    #[must_use]
    pub fn apart() -> Self {
        kernel::leave_common_mounts();
        Self::bare()
    }

    /// Makes such a world in which an ordinary user acts: for tests with namespaces of the user's own,
    /// which begin with such a copy, too.
    ///
    /// Where the tests themselves run as an ordinary user, their mounts are the common ones.
    #[must_use]
    pub fn apart_of_ordinary_user() -> Self {
        if rustix::process::geteuid().is_root() {
            kernel::leave_common_mounts();
        }
        Self::bare_of_ordinary_user()
    }

    /// Makes a world in which nothing runs yet, and in which an ordinary user acts.
    ///
    /// Where the tests themselves run as an ordinary user, that one acts.
    #[must_use]
    pub fn bare_of_ordinary_user() -> Self {
        Self::make(rustix::process::geteuid().is_root().then_some(ORDINARY_USER))
    }

    /// Returns the world's own directory.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Returns the bare directory behind the view.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.home().join("source")
    }

    /// Returns where the view is mounted.
    #[must_use]
    pub fn view(&self) -> PathBuf {
        self.home().join("view")
    }

    /// Returns the bare directory that plays the oracle; its path is as long as the view's.
    #[must_use]
    pub fn twin(&self) -> PathBuf {
        self.home().join("twin")
    }

    /// Returns the broker's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    /// Returns the process id of the broker that runs.
    ///
    /// # Panics
    /// If none does.
    #[must_use]
    pub fn broker_pid(&self) -> i32 {
        self.broker.as_ref().expect("a broker runs").pid()
    }

    /// Returns the broker's HTTP door.
    #[must_use]
    pub fn http(&self) -> Http {
        Http { port: self.port }
    }

    /// Prepares a `gate` command.
    #[must_use]
    pub fn gate<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.command(&self.program("gate")).args(args)
    }

    /// Returns the path of a program of this workspace, or of a suite that judges it.
    ///
    /// An ordinary user may not reach the directories of the one who runs the tests, and gets
    /// copies.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let original = find_program(name);
        if self.user.is_none() {
            return original;
        }
        let copy = self.home().join("bin").join(name);
        if !copy.exists() {
            fs::copy(original, &copy).expect("a program can be copied");
        }
        copy
    }

    /// Prepares a bash script that stops at its first failure, in `dir`.
    #[must_use]
    pub fn script(&self, dir: &Path, script: &str) -> Run {
        self.command("bash".as_ref()).args(["-euo", "pipefail", "-c", script]).dir(dir)
    }

    /// Prepares a Python script, in `dir`.
    #[must_use]
    pub fn python(&self, dir: &Path, script: &str) -> Run {
        self.command("python3".as_ref()).args(["-c", script]).dir(dir)
    }

    /// Mounts a disk of so many bytes (as `1m`) over one of the directories.
    pub fn lay_small_disk(&self, dir: &Path, size: &str) {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
        let script = format!("mount -t tmpfs -o size={size} tmpfs .");
        self.script(dir, &script).run().success();
    }

    /// Leaves no room on the disk of a directory, until `filler` there is removed.
    pub fn fill_disk(&self, dir: &Path) {
        let fill = "dd if=/dev/zero of=filler bs=4k 2>/dev/null || true";
        self.script(dir, fill).run().success();
    }

    /// Prepares any program.
    #[must_use]
    pub fn command(&self, program: &Path) -> Run {
        Run::new(self.raw_command(program), self.home())
    }

    /// Starts an actor in `dir`.
    #[must_use]
    pub fn actor(&self, dir: &Path) -> Actor {
        let mut command = self.raw_command(&self.program("actor"));
        command.current_dir(dir);
        Actor::start(command, self.home())
    }

    /// Starts an actor in `dir` by a command that runs it, as in `gate run --`.
    #[must_use]
    pub fn actor_by(&self, words: impl IntoIterator<Item = OsString>, dir: &Path) -> Actor {
        let mut words = words.into_iter();
        let program = words.next().expect("a command has a program");
        let mut command = self.raw_command(program.as_ref());
        command.args(words).arg(self.program("actor")).current_dir(dir);
        Actor::start(command, self.home())
    }

    /// Starts an actor in `dir` under `gate hold` with these arguments, and waits until it is let in.
    #[must_use]
    #[track_caller]
    pub fn actor_under_hold<S: AsRef<OsStr>>(
        &self,
        dir: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Actor {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let words = [self.program("gate").into(), "hold".into()].into_iter().chain(args);
        let mut actor = self.actor_by(words.chain(["--".into()]), dir);
        actor.ask(["stat", "/"]).expect("an actor answers");
        actor
    }

    /// Writes a file into the source, as it was before any view, of whoever acts here.
    #[track_caller]
    pub fn seed(&self, name: &str, text: &str) {
        let (source, path) = (self.source(), self.source().join(name));
        fs::create_dir_all(path.parent().expect("a seed lies in the source")).expect("a directory");
        fs::write(&path, text).expect("the source is writable");
        path.ancestors().take_while(|of| *of != source).for_each(|of| self.hand_over(of));
    }

    /// Gives a file to whoever acts here.
    #[track_caller]
    pub fn hand_over(&self, path: &Path) {
        if let Some(user) = self.user {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).expect("root may");
        }
    }

    /// Reads a file of the source.
    #[must_use]
    #[track_caller]
    pub fn source_text(&self, name: &str) -> String {
        fs::read_to_string(self.source().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Starts the broker and waits until it answers.
    #[track_caller]
    pub fn start_broker<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) {
        let broker = self.gate(["broker"]).args(args).start();
        wait_until(SOON, "the broker listens", || {
            assert!(broker.is_running(), "the broker ended: {}", broker.so_far());
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        self.broker = Some(broker);
    }

    /// Ends the broker as a crash would.
    #[track_caller]
    pub fn kill_broker(&mut self) {
        let broker = self.broker.take().expect("a broker runs");
        broker.signal(Signal::KILL);
        let _ = broker.finish(SOON);
    }

    /// Ends the broker in order.
    #[track_caller]
    pub fn stop_broker(&mut self) {
        let broker = self.broker.take().expect("a broker runs");
        broker.signal(Signal::TERM);
        let outcome = broker.finish(SOON);
        assert_eq!(outcome.code, Some(0), "the broker ends in order: {outcome}");
    }

    /// Mounts a view of `source` at `point`, in the foreground, and waits until it is there.
    #[track_caller]
    pub fn mount<S: AsRef<OsStr>>(
        &mut self,
        source: &Path,
        point: &Path,
        args: impl IntoIterator<Item = S>,
    ) {
        let server = self
            .gate(["mount".as_ref(), "--foreground".as_ref(), source.as_os_str(), point.as_ref()])
            .args(args)
            .start();
        wait_until(SOON, "the view is mounted", || {
            assert!(server.is_running(), "the mount ended: {}", server.so_far());
            let mounts =
                kernel::mounts_seen_by(self.namespace.as_ref().map(Namespace::keeper), point);
            mounts.iter().any(|m| m.point == point && m.is_fuse())
        });
        self.views.push(View { point: point.to_owned(), server });
    }

    /// Mounts a view over its own source in the place of the one that lies there; returns the
    /// server of that one.
    #[track_caller]
    pub fn mount_anew<S: AsRef<OsStr>>(
        &mut self,
        point: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Running {
        self.mount_anew_by(&self.program("gate"), point, args)
    }

    /// As [`World::mount_anew`], by this copy of the program.
    #[track_caller]
    pub fn mount_anew_by<S: AsRef<OsStr>>(
        &mut self,
        gate: &Path,
        point: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Running {
        let words = ["mount".as_ref(), "--foreground".as_ref(), point.as_os_str()];
        let server = self.command(gate).args(words).args(args).start();
        wait_until(SOON, "the new view is ready", || {
            assert!(server.is_running(), "the mount ended: {}", server.so_far());
            server.so_far().contains("view ready")
        });
        let at = self.views.iter().position(|view| view.point == point);
        let view = &mut self.views[at.expect("a view is mounted there")];
        std::mem::replace(&mut view.server, server)
    }

    /// Unmounts the view at `point` and waits for the end of its server.
    #[track_caller]
    pub fn umount(&mut self, point: &Path) {
        let at = self.views.iter().position(|v| v.point == point).expect("a view is mounted there");
        let view = self.views.remove(at);
        self.gate([OsStr::new("umount"), point.as_ref()]).run().success();
        let outcome = view.server.finish(SOON);
        assert_eq!(outcome.code, Some(0), "the view ends in order: {outcome}");
    }

    /// Sets a variable for all that starts in this world from now on.
    pub fn set_env(&mut self, name: &'static str, value: &str) {
        self.variables.insert(name, Some(value.to_owned()));
    }

    /// Removes a variable for all that starts in this world from now on.
    pub fn unset_env(&mut self, name: &'static str) {
        self.variables.insert(name, None);
    }

    /// Lets all that follows come to the broker by its socket file, as where nothing is set: to the
    /// kernel such a connection stands also while one end is stopped.
    pub fn find_broker_by_socket(&mut self) {
        self.unset_env("GATE_BROKER_HOST");
        self.unset_env("GATE_BROKER_PORT");
    }

    /// Unmounts a view whose server is dead.
    #[track_caller]
    pub fn bury(&mut self, point: &Path) {
        self.views.retain(|view| view.point != point);
        self.gate([OsStr::new("umount"), point.as_ref()]).run().success();
    }

    /// Returns the process that serves the view at `point`.
    #[must_use]
    pub fn server_of(&self, point: &Path) -> &Running {
        let view = self.views.iter().find(|v| v.point == point);
        &view.expect("a view is mounted there").server
    }

    fn make(user: Option<User>) -> Self {
        let home = tempfile::Builder::new().prefix("gt-").tempdir_in("/tmp").expect("a home");
        for name in ["source", "view", "twin", "bin", "home", "state", "run", "xdg-state", "tmp"] {
            fs::create_dir(home.path().join(name)).expect("a fresh directory");
        }
        end::remember_panics();
        let (watchdog, rope) = channel();
        let guarded = home.path().to_owned();
        std::thread::spawn(move || end::watch(&rope, &guarded));
        let world = Self {
            views: Vec::new(),
            broker: None,
            user,
            variables: BTreeMap::new(),
            port: free_port(),
            watchdog: Some(watchdog),
            namespace: None,
            home,
        };
        let paths = fs::read_dir(world.home()).expect("a fresh home").flatten();
        paths.for_each(|path| world.hand_over(&path.path()));
        world.hand_over(world.home());
        world
    }

    fn raw_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.home());
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        if let Some(namespace) = &self.namespace {
            namespace.enter(&mut command);
        }
        command
    }

    /// Nothing of the caller's environment but where the tools are.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let in_home = |name: &str| self.home().join(name).into_os_string();
        let user_home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        let rust = |name: &str, dir: &str| {
            std::env::var_os(name).unwrap_or_else(|| user_home.join(dir).into_os_string())
        };
        let own = [
            (WORLD_VARIABLE, self.home().as_os_str().to_owned()),
            ("HOME", in_home("home")),
            ("TMPDIR", in_home("tmp")),
            ("XDG_RUNTIME_DIR", in_home("run")),
            ("XDG_STATE_HOME", in_home("xdg-state")),
            ("GATE_STATE_DIR", in_home("state")),
            ("GATE_BROKER_HOST", "127.0.0.1".into()),
            ("GATE_BROKER_PORT", self.port.to_string().into()),
            ("PATH", std::env::var_os("PATH").unwrap_or_default()),
            ("CARGO_HOME", rust("CARGO_HOME", ".cargo")),
            ("RUSTUP_HOME", rust("RUSTUP_HOME", ".rustup")),
            ("RUST_BACKTRACE", "1".into()),
            ("LC_ALL", "C.UTF-8".into()),
            ("TZ", "UTC".into()),
            ("TERM", "xterm".into()),
        ];
        own.map(|(name, value)| (name.into(), value)).into()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// What this workspace builds, beside the test and nowhere else: never a `gate` that is installed.
const OURS: [&str; 4] = ["gate", "actor", "worker", "xtask"];

/// Returns the path of a program as it lies there, for who runs the tests.
#[must_use]
#[track_caller]
pub fn find_program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let profile = test.ancestors().find(|dir| dir.ends_with("deps")).and_then(Path::parent);
    let built = profile.expect("a test lies in target/PROFILE/deps").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs =
        if OURS.contains(&name) { vec![built] } else { std::env::split_paths(&path).collect() };
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run `cargo xtask test`, which brings it"))
}

/// Processes of one moment start at ports of their own, so that they do not race for one.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    let first = u16::try_from(std::process::id() * 8 % u32::from(span)).expect("below the span");
    (0..span)
        .map(|_| PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % span)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one port is free")
}
