//! Listings of directories, as the kernel takes them.

use std::ffi::CStr;

use gate_fuse::{DirBuffer, DirPlusBuffer, Entry, Errno};

use crate::source::Listing;

/// Lists names from `offset` (0, or that of an entry) on, as many as fit into `size` bytes;
/// none at the end.
pub(crate) fn list(directory: &dyn Listing, offset: u64, size: u32) -> Result<DirBuffer, Errno> {
    let mut listing = DirBuffer::new(size);
    directory.visit(offset, &mut |entry, _| listing.push(entry))?;
    Ok(listing)
}

/// As [`list`], with what `find` knows of each name. What it does not find is listed by name alone;
/// the kernel will ask for it.
pub(crate) fn list_found(
    directory: &dyn Listing,
    (offset, size): (u64, u32),
    find: impl Fn(&CStr) -> Option<Entry>,
) -> Result<DirPlusBuffer, Errno> {
    let mut listing = DirPlusBuffer::new(size);
    directory.visit(offset, &mut |dirent, name| {
        if !listing.fits(dirent.name) {
            return false;
        }
        let dots = matches!(dirent.name, b"." | b"..");
        let found = if dots { None } else { find(name) };
        listing.push(found.as_ref(), dirent)
    })?;
    Ok(listing)
}
