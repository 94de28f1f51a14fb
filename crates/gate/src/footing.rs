//! What lies at a directory that is to be shown once more: a view, whose source it is then, or the
//! directory itself.

use std::io;
use std::path::{Path, PathBuf};

use gate_api::{Address, process};
use gate_view::mount::Root;
use gate_view::policy::{BadGlob, Policies};

use crate::failure::{Exit, Failure};
use crate::seen::{About, Unseen};

/// Where a further view stands.
#[derive(Debug)]
pub struct Footing {
    /// The directory behind.
    pub source: PathBuf,
    /// Where it is seen, and where the further view is to be seen.
    pub mountpoint: PathBuf,
    /// The view that shows it already.
    view: Option<About>,
}

impl Footing {
    /// Finds it. The path is absolute and free of links.
    pub fn find(dir: &Path) -> Result<Footing, Failure> {
        let view = match About::of(dir) {
            Ok(about) if about.inner(dir).is_some() => about,
            Ok(about) => {
                let what = format!("cannot show {} once more", dir.display());
                let point = about.mountpoint.display();
                let cause = format!("it is in a view that lies elsewhere, at {point}");
                return Err(Failure::new(what, cause, "work there").exit(Exit::Unable));
            }
            Err(Unseen::NotGated) => {
                let source = dir.to_owned();
                return Ok(Footing { mountpoint: source.clone(), source, view: None });
            }
            Err(why) => return Err(why.failure(dir)),
        };
        let (source, mountpoint) = (view.source.clone(), view.mountpoint.clone());
        Ok(Footing { source, mountpoint, view: Some(view) })
    }

    /// Returns the agent whose private view is there already, if there is one.
    pub fn agent(&self) -> Option<&str> {
        self.view.as_ref()?.agent.as_deref()
    }

    /// Returns where the broker of the view listens that is there already.
    pub fn broker(&self) -> Option<Address> {
        self.view.as_ref().map(About::address)
    }

    /// Returns the rules of the view that is there already: all views of a source have the same.
    pub fn policies(&self) -> Option<Result<Policies, BadGlob>> {
        self.view.as_ref().map(|view| view.rules.policies())
    }

    /// Opens the source, past the view that may lie over it.
    pub fn open(&self) -> Result<Root, Failure> {
        let opened = match &self.view {
            None => Root::open(&self.source),
            Some(view) if view.pid_namespace != process::namespace() => {
                Err(io::Error::other("its view is served in another container"))
            }
            Some(view) => open_behind(view),
        };
        opened.map_err(|error| {
            let what = format!("cannot show {}", self.source.display());
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "only root, and the user whose view is there, may show it once more"
                }
                _ => "`gate status` lists the views; try again",
            };
            Failure::new(what, error, hint).exit(Exit::Unable)
        })
    }
}

fn open_behind(view: &About) -> io::Result<Root> {
    let source = Root::open_at(view.source.clone(), &view.bare())?;
    match source.inode()? == view.root {
        true => Ok(source),
        // Its server ended meanwhile, or something was mounted over the source.
        false => Err(io::Error::other("another directory lies there by now")),
    }
}
