//! One test's world: directories, environment, broker and views, and their end.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::actor::Actor;
use crate::http::Http;
use crate::kernel::{self, WORLD_VARIABLE};
use crate::run::{Run, Running};
use crate::wait::{SOON, wait_until};

/// How long a test may take before everything it waits for is ended by force.
const DEADLINE: Duration = Duration::from_secs(150);
const DEADLINE_SOAK: Duration = Duration::from_secs(3600);

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

/// A home of its own, what runs in it, and nothing of it left at the end.
pub struct World {
    views: Vec<View>,
    broker: Option<Running>,
    user: Option<User>,
    variables: BTreeMap<&'static str, Option<String>>,
    port: u16,
    watchdog: Option<Sender<()>>,
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
        let mut world = Self::bare();
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

    /// Returns the broker's HTTP door.
    #[must_use]
    pub fn http(&self) -> Http {
        Http { port: self.port }
    }

    /// Prepares a `gate` command.
    #[must_use]
    pub fn gate<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.command(&binary("gate")).args(args)
    }

    /// Prepares a bash script that stops at its first failure, in `dir`.
    #[must_use]
    pub fn script(&self, dir: &Path, script: &str) -> Run {
        self.command("bash".as_ref()).args(["-euo", "pipefail", "-c", script]).dir(dir)
    }

    /// Prepares any program.
    #[must_use]
    pub fn command(&self, program: &Path) -> Run {
        Run::new(self.raw_command(program), self.home())
    }

    /// Starts an actor in `dir`.
    #[must_use]
    pub fn actor(&self, dir: &Path) -> Actor {
        let mut command = self.raw_command(&binary("actor"));
        command.current_dir(dir);
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
        let mut command = self.raw_command(&binary("gate"));
        command.arg("hold").args(args).arg("--").arg(binary("actor")).current_dir(dir);
        let mut actor = Actor::start(command, self.home());
        actor.ask(["stat", "/"]).expect("an actor answers");
        actor
    }

    /// Writes a file into the source, as it was before any view.
    #[track_caller]
    pub fn seed(&self, name: &str, text: &str) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().expect("a seed lies in the source")).expect("a directory");
        fs::write(path, text).expect("the source is writable");
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
            kernel::mounts_below(point).iter().any(|m| m.point == point && m.is_fuse())
        });
        self.views.push(View { point: point.to_owned(), server });
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
        for name in ["source", "view", "twin", "home", "state", "run", "xdg-state", "tmp"] {
            fs::create_dir(home.path().join(name)).expect("a fresh directory");
        }
        if let Some(user) = user {
            let paths = fs::read_dir(home.path()).expect("a fresh home").flatten();
            for path in paths.map(|e| e.path()).chain([home.path().to_owned()]) {
                std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).expect("root may");
            }
        }
        let (watchdog, rope) = channel();
        let guarded = home.path().to_owned();
        std::thread::spawn(move || watch(&rope, &guarded));
        Self {
            views: Vec::new(),
            broker: None,
            user,
            variables: BTreeMap::new(),
            port: free_port(),
            watchdog: Some(watchdog),
            home,
        }
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

    /// Ends all that runs, in order; returns what did not go as it should.
    fn end(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for view in std::mem::take(&mut self.views).into_iter().rev() {
            let outcome = self.gate([OsStr::new("umount"), view.point.as_ref()]).run();
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
                continue;
            }
            let outcome = view.server.finish(SOON);
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
            }
        }
        if let Some(broker) = self.broker.take() {
            broker.signal(Signal::TERM);
            let outcome = broker.finish(SOON);
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
            }
        }
        wrong
    }

    /// Names what is left of the world.
    fn left(&self) -> Vec<String> {
        let mounts = kernel::mounts_below(self.home());
        let mounts = mounts.iter().map(|m| format!("mount {}", m.point.display()));
        let processes = kernel::processes_of(self.home());
        let processes = processes.into_iter().map(|(pid, line)| format!("process {pid}: {line}"));
        let litter = fs::read_dir(self.source()).into_iter().flatten().flatten();
        let litter = litter
            .map(|entry| entry.file_name().display().to_string())
            .filter(|name| name.starts_with(".fuse_hidden"));
        mounts.chain(processes).chain(litter).collect()
    }

    /// Ends everything by force.
    fn raze(&mut self) {
        kernel::abort_fuse_below(self.home());
        for (pid, _) in kernel::processes_of(self.home()) {
            kernel::kill(pid);
        }
        self.views.clear();
        self.broker = None;
        kernel::detach_below(self.home());
    }

    fn tell_what_happened(&self) {
        for view in &self.views {
            eprintln!("--- view {}\n{}", view.point.display(), view.server.so_far());
        }
        if let Some(broker) = &self.broker {
            eprintln!("--- broker\n{}", broker.so_far());
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_what_happened();
            self.raze();
            return;
        }
        let mut wrong = self.end();
        // A process that was told to end may need a moment.
        crate::wait::try_wait_for(SOON, || self.left().is_empty().then_some(()));
        wrong.extend(self.left());
        self.raze();
        drop(self.watchdog.take());
        assert!(wrong.is_empty(), "left behind:\n{}", wrong.join("\n"));
    }
}

/// Returns the path of a program that this workspace builds.
///
/// # Panics
///
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let profile = test.ancestors().find(|dir| dir.ends_with("deps")).and_then(Path::parent);
    let path = profile.expect("a test lies in target/PROFILE/deps").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build -p gate -p gate-tests`",
        path.display()
    );
    path
}

/// Ends what a test waits for when the test takes too long, so that it fails rather than hangs.
fn watch(rope: &Receiver<()>, home: &Path) {
    let deadline = if crate::scaled(0, 1) == 1 { DEADLINE_SOAK } else { DEADLINE };
    if rope.recv_timeout(deadline) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    eprintln!("the test overran {deadline:?}: ending what runs in {}", home.display());
    kernel::abort_fuse_below(home);
    for (pid, line) in kernel::processes_of(home) {
        eprintln!("killed {pid}: {line}");
        kernel::kill(pid);
    }
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
