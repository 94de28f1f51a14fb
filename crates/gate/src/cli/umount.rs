//! `gate umount`

use std::path::PathBuf;

use crate::failure::{Exit, Failure};
use crate::output;
use crate::unmount::{self, Manner};

/// Unmount a gated view, unless somebody uses it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Also while it is used: who has something of it goes on with that, and nobody else comes in
    #[arg(long, short = 'z')]
    lazy: bool,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let manner = if self.lazy { Manner::Lazy } else { Manner::InOrder };
        if let Some(notice) = unmount::end(&self.mountpoint, manner)? {
            output::say_line(notice);
        }
        Ok(Exit::Success)
    }
}
