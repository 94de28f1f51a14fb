//! The place of a view: what stands against one over its own source, and what is there already.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_api::mounts;
use gate_fuse::{Cover, is_of_dead};
use gate_view::mount::{Berth, Root};

use super::site::{Site, cannot_show};
use crate::config::Settings;
use crate::failure::Failure;
use crate::output;
use crate::processes;
use crate::within::within;

/// What the kernel mounts to show itself. A view would show it as its own server sees it.
const KINDS_OF_THE_KERNEL: [&str; 6] = ["proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2"];

/// How long a view may take to show whether it lives.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How much the user insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insistence {
    /// Whoever works there already may go on, and a dead view may lay the directory bare.
    pub force: bool,
    /// A view that works makes way.
    pub replace: bool,
}

/// The source of a view, and what is at its mount point by now.
pub struct Ground {
    pub source: Root,
    pub berth: Berth,
}

/// A view of the source that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Former {
    Dead,
    Alive,
    Hangs,
}

impl Ground {
    /// Opens the source of a view over itself, whatever lies there by now.
    pub fn over(site: &Site, insistence: Insistence) -> Result<Ground, Failure> {
        check_mounts_inside(site)?;
        match is_covered(site)? {
            true => Ground::instead(site, insistence),
            false => Ground::bare(site),
        }
    }

    /// Opens the source of a view that is shown elsewhere.
    pub fn beside(site: &Site, insistence: Insistence) -> Result<Ground, Failure> {
        site.check_overlap()?;
        if site.has_view()? {
            return Ground::instead(site, insistence);
        }
        site.check_vacant()?;
        Ground::bare(site)
    }

    /// As a view of it is there already: takes its place, if it is dead or is to make way.
    fn instead(site: &Site, insistence: Insistence) -> Result<Ground, Failure> {
        if insistence.replace {
            return Ground::covered(site).map_err(|error| {
                let hint = format!("`gate umount {}`, then mount again", shown(site));
                cannot(site, format!("its view cannot make way: {error}"), hint)
            });
        }
        match ask(&site.mountpoint) {
            Former::Dead => Ground::after_dead(site, insistence),
            Former::Alive => {
                let hint =
                    format!("use it, `gate umount {}`, or mount anew with --replace", shown(site));
                Err(cannot(site, "it is gated already", hint))
            }
            Former::Hangs => {
                let hint = format!("`gate doctor {}`, or mount anew with --replace", shown(site));
                Err(cannot(site, "it is gated already, by a view that does not answer", hint))
            }
        }
    }

    fn after_dead(site: &Site, insistence: Insistence) -> Result<Ground, Failure> {
        match Ground::covered(site) {
            Ok(ground) => Ok(ground),
            Err(_) if insistence.force => Ground::laid_bare(site),
            Err(error) => {
                let cause = format!(
                    "its view has died, and between that and the next the directory would be bare for a \
                     moment ({error})"
                );
                let hint = format!(
                    "stop who writes there, then `gate umount {point}` and mount again, or `gate mount --force \
                     {} {point}`; root of Linux 6.5 or later leaves no such moment (`--allow-other` lets you in)",
                    site.source.display(),
                    point = site.mountpoint.display(),
                );
                Err(cannot(site, cause, hint))
            }
        }
    }

    fn bare(site: &Site) -> Result<Ground, Failure> {
        let source = Root::open(&site.source).map_err(|error| unopened(site, error))?;
        Ok(Ground { source, berth: Berth::Free })
    }

    fn covered(site: &Site) -> io::Result<Ground> {
        if site.source.as_os_str().len() > gate_fuse::MADE_NAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let cover = Cover::at(&site.mountpoint)?;
        let beneath = cover.beneath()?;
        let source = match site.is_in_place() {
            true => Root::of(site.source.clone(), beneath),
            false => Root::open(&site.source)?,
        };
        Ok(Ground { source, berth: Berth::Taken(cover) })
    }

    fn laid_bare(site: &Site) -> Result<Ground, Failure> {
        let hint = "do it as the user who mounted it, or as root";
        gate_fuse::detach(&site.mountpoint)
            .map_err(|error| cannot(site, format!("the view over it has died: {error}"), hint))?;
        output::say_line(format_args!("{} is bare until its new view is mounted", shown(site)));
        Ground::bare(site)
    }
}

/// Checks that nothing of Gate would have to be read through the view, which might wait for it.
pub fn check_needs(site: &Site, token_file: Option<&Path>) -> Result<(), Failure> {
    let of_kernel = ["/proc", "/dev/fuse"].map(|path| (PathBuf::from(path), "which Gate needs"));
    let settings = Settings::paths().filter(|path| path.exists());
    let settings = settings.map(|path| (path, "Gate's own settings"));
    let programs = processes::own_mappings().map(|path| (path, "which Gate itself runs from"));
    let tokens = token_file.into_iter().map(|path| (path.to_owned(), "the token for its broker"));
    let mut needs = of_kernel.into_iter().chain(settings).chain(tokens).chain(programs);
    let inside = |path: &PathBuf| {
        path.starts_with(&site.source)
            || path.canonicalize().is_ok_and(|path| path.starts_with(&site.source))
    };
    match needs.find(|(path, _)| inside(path)) {
        None => Ok(()),
        Some((path, what)) => {
            let hint =
                format!("keep that elsewhere, or show a part: `gate mount {}/…`", shown(site));
            Err(cannot(site, format!("it holds {}, {what}", path.display()), hint))
        }
    }
}

/// What is mounted in the directory shows in its view, but for what only the kernel can show.
pub fn check_mounts_inside(site: &Site) -> Result<(), Failure> {
    let table = mounts::all().map_err(|error| cannot(site, error, "is /proc mounted?"))?;
    let inside = table.iter().find(|mount| {
        mount.point.starts_with(&site.source)
            && KINDS_OF_THE_KERNEL.iter().any(|kind| mount.kind == *kind)
    });
    match inside {
        None => Ok(()),
        Some(mount) => {
            let kind = mount.kind.display();
            let cause = format!("{} shows the kernel itself ({kind})", mount.point.display());
            let hint = "unmount that first, or show another directory";
            Err(cannot(site, cause, hint))
        }
    }
}

/// Returns whether a view lies over the source already.
fn is_covered(site: &Site) -> Result<bool, Failure> {
    let mounted =
        mounts::at(&site.source).map_err(|error| cannot(site, error, "is /proc mounted?"))?;
    match mounted {
        Some(mount) if mount.is_gated && mount.source != site.source => {
            let cause = format!("a view of {} is mounted there", mount.source.display());
            let hint = format!("use it, or `gate umount {}`", shown(site));
            Err(cannot(site, cause, hint))
        }
        Some(mount) if mount.is_gated => Ok(true),
        Some(_) | None if site.source.is_dir() => Ok(false),
        Some(_) | None => Err(cannot(site, "it is no directory", "give a directory")),
    }
}

/// Asks a view for a sign of life; one that hangs must not hang this command without a word.
fn ask(point: &Path) -> Former {
    let asked = point.to_owned();
    match within(ANSWER_PATIENCE, move || asked.metadata()) {
        Some(Err(error)) if is_of_dead(&error) => Former::Dead,
        Some(Ok(_) | Err(_)) => Former::Alive,
        None => Former::Hangs,
    }
}

fn unopened(site: &Site, error: io::Error) -> Failure {
    cannot(site, error, "check the directory's mode")
}

pub fn cannot(site: &Site, cause: impl std::fmt::Display, hint: impl std::fmt::Display) -> Failure {
    cannot_show(&site.source, cause, hint)
}

fn shown(site: &Site) -> std::path::Display<'_> {
    site.mountpoint.display()
}
