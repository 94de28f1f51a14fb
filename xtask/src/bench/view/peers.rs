//! The places: a bare directory, file systems that others wrote, gated views, of directories and of a bucket.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ground::Ground;
use super::passthrough;
use super::row::{Behind, Field, Site};
use crate::bench::home::Home;
use crate::bench::keeper::Keeper;
use crate::bench::mounted::Mounted;
use crate::bench::process;
use crate::step::{self, Failure};

pub const BARE: &str = "bare";
/// libfuse's own, whose reads and writes pass through it as they do through a view.
pub const PASSTHROUGH: &str = "passthrough_hp";
pub const GATE: &str = "gate";
pub const GATE_FAST: &str = "gate, fast";
pub const GOCRYPTFS: &str = "gocryptfs";
/// A bucket of a daemon of its own.
pub const BUCKET: &str = "bucket";

/// The modes of a view, with the flags of `gate mount`.
const MODES: [(&str, &[&str]); 3] =
    [(GATE, &[]), ("gate, strict", &["--mode", "strict"]), (GATE_FAST, &["--mode", "fast"])];

/// Prints the password that protects nothing.
const PASSWORD: &str = "echo bench";

/// A place and who serves it.
pub struct Place<'a> {
    pub name: &'static str,
    pub site: Site,
    server: Server<'a>,
}

/// Who serves a place.
enum Server<'a> {
    Nobody,
    Process(Mounted),
    Daemon(Keeper<'a>),
}

impl Place<'_> {
    /// Tells whether it takes part.
    pub fn is_in(&self, field: Field) -> bool {
        match field {
            Field::All => true,
            Field::Only(names) => names.contains(&self.name),
        }
    }

    /// Tells whether it is one of ours.
    pub fn is_view(&self) -> bool {
        self.name == BUCKET || MODES.iter().any(|(name, _)| *name == self.name)
    }

    /// Returns the process that serves it.
    pub fn pid(&self) -> Option<u32> {
        match &self.server {
            Server::Nobody => None,
            Server::Process(mounted) => Some(mounted.pid()),
            Server::Daemon(keeper) => keeper.pid().ok(),
        }
    }

    /// Returns the daemon that serves it.
    pub fn keeper(&self) -> Option<&Keeper<'_>> {
        match &self.server {
            Server::Daemon(keeper) => Some(keeper),
            Server::Nobody | Server::Process(_) => None,
        }
    }

    /// Returns how much memory its server has.
    pub fn memory(&self) -> Option<usize> {
        process::resident_bytes(self.pid()?).ok()
    }
}

/// Makes and mounts what views of directories are measured beside, and them.
pub fn all<'a>(
    home: &'a Home,
    ground: &'a Ground,
    files: usize,
) -> Result<Vec<Place<'a>>, Failure> {
    let maker = Maker { home, ground, files };
    let mut places = vec![maker.bare()?, maker.bindfs()?, maker.gocryptfs()?];
    places.extend(maker.passthrough()?);
    for (name, flags) in MODES {
        places.push(maker.view(name, flags)?);
    }
    Ok(places)
}

/// Makes and mounts a bucket, and what it is measured beside.
pub fn sealed<'a>(
    home: &'a Home,
    ground: &'a Ground,
    files: usize,
) -> Result<Vec<Place<'a>>, Failure> {
    let maker = Maker { home, ground, files };
    Ok(vec![maker.bare()?, maker.gocryptfs()?, maker.bucket()?])
}

/// Makes only a view of the default mode.
pub fn view<'a>(home: &'a Home, ground: &'a Ground, files: usize) -> Result<Place<'a>, Failure> {
    let (name, flags) = MODES[0];
    Maker { home, ground, files }.view(name, flags)
}

struct Maker<'a> {
    home: &'a Home,
    ground: &'a Ground,
    files: usize,
}

impl<'a> Maker<'a> {
    fn bare(&self) -> Result<Place<'a>, Failure> {
        let dir = self.make_dir(BARE)?;
        Ok(Place { name: BARE, site: self.site(dir, Behind::Nothing), server: Server::Nobody })
    }

    fn bindfs(&self) -> Result<Place<'a>, Failure> {
        self.mounted("bindfs", |source, point| {
            let mut command = Command::new("bindfs");
            Mounted::start(command.args(["-f", "--no-allow-other"]).args([source, point]), point)
        })
    }

    fn gocryptfs(&self) -> Result<Place<'a>, Failure> {
        let mut place = self.mounted(GOCRYPTFS, |source, point| {
            let gocryptfs = || {
                let mut command = Command::new("gocryptfs");
                command.args(["-q", "-extpass", PASSWORD]).stdin(Stdio::null());
                command
            };
            step::run(gocryptfs().args(["-init", "-scryptn", "10"]).arg(source))?;
            Mounted::start(gocryptfs().arg("-fg").args([source, point]), point)
        })?;
        // Nothing can be put there but through it.
        place.site.behind = Behind::Sealed;
        Ok(place)
    }

    /// Its store lies on the same ground.
    fn bucket(&self) -> Result<Place<'a>, Failure> {
        let fail = |error| Failure::new("cannot mount a bucket", error);
        let point = self.make_dir(BUCKET)?;
        let keeper = Keeper::new(self.home, self.ground.dir.join("behind-bucket"));
        keeper.start().map_err(fail)?;
        keeper.gate(&["bucket", "create", BUCKET]).map_err(fail)?;
        let at = point.to_str().expect("we named it");
        keeper.gate(&["mount", "add", BUCKET, at, "--start"]).map_err(fail)?;
        let site = self.site(point, Behind::Sealed);
        Ok(Place { name: BUCKET, site, server: Server::Daemon(keeper) })
    }

    fn passthrough(&self) -> Result<Vec<Place<'a>>, Failure> {
        let forms = passthrough::forms();
        let place = |(name, flags): (&'static str, Vec<&str>)| {
            self.mounted(name, |source, point| {
                let mut command = Command::new(passthrough::program());
                command.arg("--foreground").args(flags).args([source, point]);
                Mounted::start(&mut command, point)
            })
        };
        forms.into_iter().map(place).collect()
    }

    fn view(&self, name: &'static str, flags: &[&str]) -> Result<Place<'a>, Failure> {
        self.mounted(name, |source, point| self.home.mount_view(flags, source, point))
    }

    fn mounted(
        &self,
        name: &'static str,
        mount: impl FnOnce(&Path, &Path) -> Result<Mounted, Failure>,
    ) -> Result<Place<'a>, Failure> {
        let point = self.make_dir(&name.replace(", ", "-"))?;
        let source = self.make_dir(&format!("behind-{}", name.replace(", ", "-")))?;
        let server = mount(&source, &point)?;
        Ok(Place {
            name,
            site: self.site(point, Behind::Plain(source)),
            server: Server::Process(server),
        })
    }

    fn site(&self, dir: PathBuf, behind: Behind) -> Site {
        Site { dir, behind, ground: self.ground.dir.clone(), files: self.files }
    }

    fn make_dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.ground.dir.join(name);
        std::fs::create_dir(&dir)
            .map_err(|e| Failure::new(format!("cannot make {}", dir.display()), e))?;
        Ok(dir)
    }
}
