//! A bucket at a glance: what people are told of it before they look into it.

use gate_bucket::bucket::history::Asked;
use gate_core::tree::shown::{Directory, What};
use uuid::Uuid;

use super::past::not_past;
use super::{Buckets, lock};
use crate::daemon::refusal::Refusal;

/// So many files and directories are counted.
const COUNTED_MAX: usize = 10_000;

/// What is in a bucket, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Files and symbolic links.
    pub files: usize,
    /// There are more than were counted.
    pub are_more: bool,
    /// When it was changed last, in ms since 1970; never if nothing was ever done.
    pub changed_at_ms: Option<u64>,
}

impl Buckets {
    /// Counts what is in a bucket, up to a bound.
    pub fn glance(&self, id: Uuid) -> Result<Glance, Refusal> {
        let bucket = self.get(&id.to_string())?;
        let changed_at_ms = {
            let mut bucket = lock(&bucket)?;
            let lens = bucket.lens();
            let newest = Asked { most: 1, ..Asked::default() };
            let newest = bucket.told(&newest, &lens).map_err(not_past)?;
            newest.first().map(|told| told.at_ms)
        };
        let view = self.view(&id.to_string(), None)?;
        let (path, what) = view.find(b"/")?;
        let (mut files, mut seen) = (0, 0);
        let mut left: Vec<_> = directory(what).map(|root| (path, root)).into_iter().collect();
        while let Some((path, inside)) = left.pop() {
            for (path, what) in view.entries(&path, &inside)? {
                if seen == COUNTED_MAX {
                    return Ok(Glance { files, are_more: true, changed_at_ms });
                }
                seen += 1;
                match directory(what) {
                    Some(inside) => left.push((path, inside)),
                    None => files += 1,
                }
            }
        }
        Ok(Glance { files, are_more: false, changed_at_ms })
    }
}

fn directory(what: What) -> Option<Directory> {
    match what {
        What::Directory(directory) => Some(directory),
        What::File { .. } | What::Beside { .. } => None,
    }
}
