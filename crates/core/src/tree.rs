//! A bucket's tree: what can be done to it, and what is there when it was done.
//!
//! Operations come in *entries*, in any order in which each comes after what its author had seen. A
//! [`state::State`] is a function of the set of them: who knows the same has the same tree, and
//! nothing that anybody wrote is gone from it unless somebody who had seen it took it away.
//!
//! The rules:
//!
//! 1. Of moves that would put a directory into itself the later, in the order of all, is none.
//! 2. A deletion counts if who deleted had seen everything that was done to the name and its file; a
//!    change of times is nothing.
//! 3. A deleted directory in which something lives is shown all the same.
//! 4. Who makes a directory of one name at the same time makes one; several that get one name show
//!    as one.
//! 5. Of several things of one name the first keeps it; the others show with who put them there.
//! 6. A file's content is all versions in whose place no other came; the one of the latest turn
//!    bears the name. The others show beside it; those of databases and of what is in `.git`, in
//!    `.conflicts`. Texts that merge show as one ([`shown::Lens`]).
//!
//! Not here: bytes of files, keys, signatures, disks.

pub mod content;
pub mod diff;
pub mod encode;
pub mod id;
pub mod lineage;
pub mod op;
pub mod overlay;
pub mod record;
pub mod restore;
pub mod seen;
pub mod shown;
pub mod state;
pub mod tables;
pub mod undo;
pub mod walk;

#[cfg(test)]
mod tests;
