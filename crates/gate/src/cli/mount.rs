//! `gate mount`

mod guard;
mod in_place;
mod managed;
mod past;
mod private;
mod reservation;
mod site;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::FalseyValueParser;
use gate_api::mounts;
use gate_api::session::{MaxHold, PrivateView};
use gate_api::wire::{Origin, Rules, Source as Served};
use gate_api::{Address, AttachError, Attachment, ClientInfo, Session, Watcher};
use gate_core::lock::limits::TEXT_BYTES_MAX;
use gate_fuse::MountError;
use gate_view::backing;
use gate_view::kept::Place;
use gate_view::mount::{About, Behind, Berth, Ears, Root};
use gate_view::policy::{BadGlob, Policies, READ_WAIT_DEFAULT, Rule};
use gate_view::{Identity, Options, OwnerScope, Ready, ServeError};
use rustix::process::Signal;

use crate::background;
use crate::config::{Settings, SourceSettings};
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::fault;
use crate::output;
use crate::reach::{BrokerFlags, DaemonFlags, Reached, Wanted};
use crate::signals::Signals;
use crate::unmount;
use in_place::{Ground, Insistence};
use reservation::Reservation;
use site::{Site, cannot_show};

/// Show a directory as a gated view, in which every open takes its turn
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    managed: Option<managed::Managed>,
    /// The directory behind the view
    #[arg(value_name = "SOURCE", required_unless_present = "root")]
    source: Option<PathBuf>,
    /// Where the view is shown: an empty directory outside the source [default: over SOURCE]
    #[arg(value_name = "MOUNTPOINT", conflicts_with_all = ["mount", "root"])]
    mountpoint: Option<PathBuf>,
    /// The same as SOURCE; what is then written without a flag is the MOUNTPOINT
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The same as MOUNTPOINT
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Stay in the foreground: Ctrl-C unmounts
    #[arg(long)]
    foreground: bool,
    /// Refuse all changes
    #[arg(long)]
    read_only: bool,
    /// Let other users in
    #[arg(long)]
    allow_other: bool,
    /// Mount over SOURCE although others work in it, or although it is bare for a moment when a dead
    /// view is replaced
    #[arg(long)]
    force: bool,
    /// Mount over SOURCE in the place of its view: who has files open goes on with the old one
    #[arg(long)]
    replace: bool,
    /// Serve the view of one agent, mounted by whoever is at the other end of the standard input
    #[arg(long, value_name = "AGENT", hide = true)]
    private: Option<String>,
    /// Serve a view that a daemon keeps: without that daemon there is none
    #[arg(long, hide = true)]
    kept: bool,
    #[command(flatten)]
    turns: Turns,
    #[command(flatten)]
    guard: guard::Flags,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// How turns are taken in a view.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Turns")]
struct Turns {
    /// How much is checked, against how fast it is
    #[arg(long, value_enum, default_value_t = Mode::Default)]
    mode: Mode,
    /// Kill who writes past the view after its turn was taken away, where nothing else stops it:
    /// with --mode fast, or by a mapping, files above 64 MiB and files with several names
    #[arg(long)]
    kill: bool,
    /// Gate names or not, as in '*.log=none' or 'build/=gated'; may be repeated, the last one wins
    #[arg(long = "policy", value_name = "GLOB=none", value_parser = rule)]
    policies: Vec<Rule>,
    /// Let readers pass open files that were idle for so long; 0: never [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    read_wait: Option<Duration>,
    /// Who may always open what it has open already
    #[arg(long, value_enum, default_value_t = Scope::Process)]
    owner_scope: Scope,
    /// Name all owners of this view so [default: by their process]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    owner: String,
    /// Name of the space of the source's paths at the broker
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
    /// End each turn when the file is flushed, not when it is released
    #[arg(long, env = "GATE_RELEASE_ON_FLUSH", value_parser = FalseyValueParser::new())]
    release_on_flush: bool,
    /// Fail calls with ETIMEDOUT that waited so long; 0: never [default: 0]
    #[arg(long, value_name = "MS", env = "GATE_ACQUIRE_TIMEOUT_MS")]
    acquire_timeout_ms: Option<u64>,
    /// Keep what is held while broker and view do not reach each other for so long
    /// [default: 10000]
    #[arg(long, value_name = "MS", env = "GATE_LEASE_MS", value_parser = duration::lease_ms())]
    lease_ms: Option<u64>,
    /// Ask users of a file that others wait for to close it after so long, then fence them; 0: never
    /// [default: the broker's]
    #[arg(long, value_name = "MS", env = "GATE_MAX_HOLD_MS")]
    max_hold_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The kernel reads large files itself; all that is written is checked
    Default,
    /// Nobody passes, everything is gated, and all I/O is checked
    Strict,
    /// The kernel writes, too: a turn that was taken away ends with the last close
    Fast,
}

impl Mode {
    fn backing(self) -> backing::Policy {
        match self {
            Mode::Strict => backing::Policy::Nothing,
            Mode::Default => backing::Policy::Reads,
            Mode::Fast => backing::Policy::Everything,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    /// Each open file is on its own
    Handle,
    /// All that one process has open
    Process,
    /// All that the processes of one agent have open
    Agent,
    /// All that is open in this view: for file servers
    Mount,
}

/// A view on its way to be mounted.
struct Plan {
    source: Root,
    site: Site,
    berth: Berth,
    /// Where this user's logs go.
    state_dir: PathBuf,
    policies: Policies,
    settings: Settings,
    ears: Ears,
}

impl Args {
    pub fn run(mut self) -> Result<Exit, Failure> {
        if let Some(managed) = self.managed.take() {
            return managed.run();
        }
        fault::end_whole();
        match (self.foreground, background::is_background()) {
            (true, _) => self.serve(),
            (false, true) => {
                background::leave_terminal()?;
                match self.private.clone() {
                    None => self.serve(),
                    Some(agent) => self.serve_privately(agent),
                }
            }
            (false, false) => {
                let stdin = self.private.as_ref().map_or_else(Stdio::null, |_| Stdio::inherit());
                background::start(std::env::args_os().skip(1), stdin).map(|()| Exit::Success)
            }
        }
    }

    fn serve(self) -> Result<Exit, Failure> {
        let (source, mountpoint) = self.named()?;
        let site = Site::find(source, mountpoint)?;
        let reservation = Reservation::of(&site.mountpoint)
            .map_err(|error| cannot_show(&site.mountpoint, error, "try again"))?;
        let signals = Signals::keep(&[Signal::TERM, Signal::INT, Signal::HUP])
            .map_err(|error| Failure::new("cannot listen to signals", error, "try again"))?;
        let plan = self.plan(site)?;
        let wanted = Wanted::find(&self.broker, &plan.settings)?;
        if plan.site.is_in_place() {
            in_place::check_needs(&plan.site, wanted.token_file())?;
        }
        let reached = self.reach(&wanted, &plan)?;
        if let Some(theirs) = reached.state_dir_here() {
            plan.site.check_state(&theirs)?;
        }
        // One that does not tell is another's to ask: what is walked into is refused there, too.
        let private = reached.session.status().map(|status| status.private);
        plan.site.check_unshown(&private.unwrap_or_default())?;
        let attachment = self.attach(&reached, &plan)?;
        if let Some(notice) = &attachment.notice {
            output::say_line(format_args!("{notice}"));
        }
        let (site, state_dir) = (plan.site.clone(), plan.state_dir.clone());
        let covers = site.is_in_place() && matches!(plan.berth, Berth::Free);
        let known = covers.then(|| past::check(&site, self.insistence())).transpose()?;
        let ready = self.mount(reached, &attachment, plan)?;
        drop(reservation);
        if let Some(known) = known {
            past::tell_of_latecomers(&site, &known);
        }
        site.unmount_on(signals);
        self.tell_ready(&site, &state_dir)?;
        match ready.serve() {
            Ok(()) => Ok(Exit::Success),
            Err(error) => {
                let what = format!("the view at {} came to an end", site.mountpoint.display());
                let hint = "`gate umount` it, then mount again";
                Err(Failure::new(what, error, hint))
            }
        }
    }

    fn plan(&self, site: Site) -> Result<Plan, Failure> {
        let settings = Settings::load()?;
        let state_dir = self.broker.state_dir(&settings)?;
        site.check_state(&state_dir)?;
        site.check_gated()?;
        let Ground { source, berth } = match site.is_in_place() {
            true => Ground::over(&site, self.insistence())?,
            false => Ground::beside(&site, self.insistence())?,
        };
        site.check_open(&source.bare())?;
        let of_source = SourceSettings::load(&source.bare(), &site.source)?;
        let policies = self.turns.policies(&settings, of_source)?;
        Ok(Plan { source, site, berth, state_dir, policies, settings, ears: Ears::new() })
    }

    /// Returns the source and the mount point, by whichever words they were named.
    fn named(&self) -> Result<(&Path, Option<&Path>), Failure> {
        let [source, mountpoint, root, mount] =
            [&self.source, &self.mountpoint, &self.root, &self.mount].map(Option::as_deref);
        match (root, source) {
            (Some(_), Some(_)) if mount.is_some() => {
                let cause = "both --mount and a directory without a flag name the mount point";
                let hint = "write it as `gate mount --root SOURCE --mount MOUNTPOINT`";
                Err(Failure::new("cannot tell where to mount", cause, hint).exit(Exit::Unable))
            }
            (Some(root), point) => Ok((root, point.or(mount))),
            (None, source) => Ok((source.expect("clap demands a source"), mountpoint.or(mount))),
        }
    }

    fn insistence(&self) -> Insistence {
        Insistence { force: self.force, replace: self.replace }
    }

    fn reach(&self, wanted: &Wanted, plan: &Plan) -> Result<Reached, Failure> {
        let name = format!("gate mount {}", plan.site.mountpoint.display());
        let client = self.client(name, plan);
        let ears: Arc<dyn Watcher> = Arc::new(plan.ears.clone());
        if self.kept {
            return wanted.reach_one(&client, &ears);
        }
        let max_hold_ms = self.turns.max_hold_ms.or(plan.settings.max_hold_ms);
        let options = max_hold_ms.map(|ms| ("--max-hold-ms", ms.to_string().into()));
        let daemon = DaemonFlags { options: options.into_iter().collect() };
        wanted.reach_or_start(&client, &ears, &daemon)
    }

    fn client(&self, mut name: String, plan: &Plan) -> ClientInfo {
        let Plan { settings, site, .. } = plan;
        let private = self.private.clone().map(|agent| {
            let [mountpoint, source] =
                [&site.mountpoint, &site.source].map(|path| path.as_os_str().as_bytes().to_vec());
            PrivateView { agent, mountpoint, source }
        });
        let lease_ms = self.turns.lease_ms.or(settings.lease_ms);
        let max_hold_ms = self.turns.max_hold_ms.or(settings.max_hold_ms);
        let max_hold = max_hold_ms.map(|ms| match ms {
            0 => MaxHold::Never,
            ms => MaxHold::After(Duration::from_millis(ms)),
        });
        // A path may be longer than a name.
        name.truncate(name.floor_char_boundary(TEXT_BYTES_MAX));
        ClientInfo { name, lease: lease_ms.map(Duration::from_millis), max_hold, private }
    }

    fn attach(&self, reached: &Reached, plan: &Plan) -> Result<Attachment, Failure> {
        let what = || format!("cannot mount {}", plan.site.source.display());
        let directory = plan.source.describe().map_err(|error| {
            Failure::new(what(), error, "all directories above the source must be searchable")
        })?;
        let source = Served {
            origin: Origin::Directory(directory),
            space: self.turns.space.clone(),
            by_host_and_port: matches!(reached.address, Address::Tcp { .. }),
            rules: Some(Rules {
                read_wait: plan.policies.read_wait(),
                policies: plan.policies.canonical(),
            }),
        };
        reached.session.attach(source).map_err(|error| match error {
            AttachError::Refused(refusal) => Failure::new(what(), refusal.reason, refusal.fix),
            AttachError::BrokerGone => {
                Failure::new(what(), error, "`gate status` tells how the broker is")
                    .exit(Exit::Unable)
            }
        })
    }

    fn mount(
        &self,
        reached: Reached,
        attachment: &Attachment,
        plan: Plan,
    ) -> Result<Ready, Failure> {
        let Plan { source, site, berth, state_dir, policies, settings, ears } = plan;
        let acquire_timeout_ms = self.turns.acquire_timeout_ms.or(settings.acquire_timeout_ms);
        let kept = Place::of(&state_dir, &site.source, self.guard.limits(&settings));
        let options = Options {
            mountpoint: site.mountpoint.clone(),
            berth,
            policies,
            identity: Identity {
                scope: self.turns.owner_scope.into(),
                owner: self.private.as_ref().unwrap_or(&self.turns.owner).clone(),
                agent: self.private.clone(),
                acquire_timeout: limit(acquire_timeout_ms),
            },
            release_on_flush: self.turns.release_on_flush
                || settings.release_on_flush.unwrap_or(false),
            allow_other: self.allow_other,
            read_only: self.read_only,
            backing: self.turns.mode.backing(),
            kill: self.turns.kill,
            guard: self.guard.policy(&settings),
            kept,
            about: About { broker: reached.address.to_os_string() },
        };
        let broker: (Session, &Attachment) = (reached.session, attachment);
        Ready::mount(Behind::Directory(source), broker, &ears, options)
            .map_err(|error| not_mounted(&site, &error))
    }

    fn tell_ready(&self, site: &Site, state_dir: &Path) -> Result<(), Failure> {
        let (point, source) = (site.mountpoint.display(), site.source.display());
        if self.foreground {
            output::say_line(format_args!("view ready: {point} shows {source}"));
            return Ok(());
        }
        let log = background::log_file(state_dir, &format!("mount-{}", site.log_name()));
        background::ready(&log).map_err(|error| {
            // Nobody waits for this view any more, or its log cannot be written.
            let _ = gate_fuse::unmount(&site.mountpoint);
            let what = format!("cannot keep {point} mounted");
            Failure::new(what, error, format!("look at its log file, {}", log.display()))
        })
    }
}

impl Turns {
    /// Returns the rules, weakest first: shipped, system, user, source, flags.
    fn policies(&self, settings: &Settings, source: SourceSettings) -> Result<Policies, Failure> {
        let mut rules = match self.mode {
            Mode::Strict => Vec::new(),
            Mode::Default | Mode::Fast => Rule::shipped(),
        };
        for text in settings.policy.iter().chain(&source.policy) {
            rules.push(Rule::parse(text).map_err(|bad| bad_glob(&bad))?);
        }
        rules.extend(self.policies.iter().cloned());
        let read_wait = match self.mode {
            Mode::Strict => Duration::ZERO,
            Mode::Default | Mode::Fast => self
                .read_wait
                .or(source.read_wait)
                .or(settings.read_wait)
                .unwrap_or(READ_WAIT_DEFAULT),
        };
        let read_wait = (!read_wait.is_zero()).then_some(read_wait);
        Policies::new(rules, read_wait).map_err(|bad| bad_glob(&bad))
    }
}

impl From<Scope> for OwnerScope {
    fn from(scope: Scope) -> OwnerScope {
        match scope {
            Scope::Handle => OwnerScope::Handle,
            Scope::Process => OwnerScope::Process,
            Scope::Agent => OwnerScope::Agent,
            Scope::Mount => OwnerScope::Mount,
        }
    }
}

/// Parses the value of `--policy`.
fn rule(text: &str) -> Result<Rule, String> {
    Rule::parse(text).map_err(|bad| bad.reason)
}

fn bad_glob(bad: &BadGlob) -> Failure {
    let what = format!("cannot understand the policy `{}`", bad.glob);
    Failure::new(what, &bad.reason, "write it as in '*.log=none'").exit(Exit::Unable)
}

fn limit(ms: Option<u64>) -> Option<Duration> {
    ms.filter(|ms| *ms > 0).map(Duration::from_millis)
}

fn not_mounted(site: &Site, error: &ServeError) -> Failure {
    let hint = match error {
        ServeError::Mount(MountError::NoMountpoint(_) | MountError::NotDirectory(_)) => {
            "give an existing, empty directory"
        }
        ServeError::Mount(MountError::Dead(_)) => "a dead view is there: `gate umount` it first",
        ServeError::Mount(MountError::NoDevice(_)) => {
            "load the module: `modprobe fuse`; in a container, pass the device /dev/fuse in"
        }
        ServeError::Mount(MountError::NoFusermount(_)) => "install fuse3, or mount as root",
        ServeError::Mount(MountError::AllowOther(_)) => {
            "put user_allow_other into /etc/fuse.conf, or leave --allow-other out"
        }
        ServeError::Mount(MountError::NotPermitted(_)) => {
            "choose a mount point that is yours, or mount as root"
        }
        ServeError::Mount(MountError::Failed(_) | MountError::Unsupported(_))
        | ServeError::Io(_) => "see `dmesg`, or try again",
        ServeError::Start(_) => "Gate needs Linux 5.15 or later",
        ServeError::Source(_) => "check that the source can be read",
    };
    let cause = match error {
        ServeError::Mount(error) => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
        error => error.to_string(),
    };
    let (source, point) = (site.source.display(), site.mountpoint.display());
    Failure::new(format!("cannot mount {source} at {point}"), cause, hint)
}

impl Site {
    /// Unmounts when a signal comes, unless somebody uses the view: then that is said and the
    /// view stays.
    fn unmount_on(&self, signals: Signals) {
        let point = self.mountpoint.clone();
        let uppermost = |point: &Path| mounts::at(point).ok().flatten().map(|mount| mount.id);
        let own = uppermost(&point);
        std::thread::spawn(move || {
            while signals.next().is_ok() {
                if uppermost(&point) != own {
                    tracing::warn!(?point, "the view was replaced, and ends with its last user");
                    continue;
                }
                match unmount::unmount(&point) {
                    Ok(()) => return,
                    Err(error) => drop(unmount::refused(&point, &error).report()),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gate_view::policy::Gating;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["mount"], words].concat()).map(|line| line.args)
    }

    #[test]
    fn both_forms_name_source_and_mountpoint() {
        for words in
            [&["/r", "/m"][..], &["--root", "/r", "--mount", "/m"], &["--root", "/r", "/m"]]
        {
            let args = parse(words).unwrap();
            assert_eq!(args.named().unwrap(), ("/r".as_ref(), Some("/m".as_ref())));
        }
        for words in [&["/r"][..], &["--root", "/r"]] {
            assert_eq!(parse(words).unwrap().named().unwrap(), ("/r".as_ref(), None));
        }
        assert!(parse(&[]).is_err());
        assert!(parse(&["--root", "/r", "/m", "/n"]).is_err());
        assert!(parse(&["--root", "/r", "--mount", "/m", "/n"]).unwrap().named().is_err());
    }

    #[track_caller]
    fn check(words: &[&str], path: &str, gating: Gating, read_wait: Option<u64>) {
        let args = parse(&[&["/r", "/m"], words].concat()).unwrap();
        let settings = Settings { policy: vec!["*.user=none".into()], ..Settings::default() };
        let source = SourceSettings { policy: vec!["*.user=gated".into()], read_wait: None };
        let policies = args.turns.policies(&settings, source).unwrap();
        assert_eq!(policies.gating(path.as_bytes()), gating, "{words:?} {path}");
        assert_eq!(policies.read_wait(), read_wait.map(Duration::from_secs), "{words:?}");
    }

    #[test]
    fn the_nearest_rule_wins() {
        check(&[], "x.log", Gating::None, Some(30));
        check(&[], "x.user", Gating::Gated, Some(30));
        check(&["--policy", "*.user=none", "--read-wait", "2s"], "x.user", Gating::None, Some(2));
        check(&["--read-wait", "0"], "x", Gating::Gated, None);
        check(&["--mode", "strict"], "x.log", Gating::Gated, None);
    }
}
