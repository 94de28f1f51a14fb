//! Under which number a file is known while the bucket is shown.
//!
//! A file that is saved by a rename stays the file that it is in the bucket. To a kernel, and to whoever waits for a turn, it
//! is as everywhere: what was renamed keeps its number under the new name, and what lost the name keeps its own.
//! So `stat` says of the path before the rename the number of the old file and after it that of the one that was
//! renamed over it; an open handle has one number all the time, whichever of the two it is of. A file has
//! a face for that, which is its id until something else is put in its place, and then the face of that. When the bucket
//! is shown the next time, as after a restart, each file has its id again: nobody has anything open then.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use gate_core::tree::id::FileId;

/// Of so many files another face is known. Where there is no room, what is put in place of a file is another file.
const FACES_MAX: usize = 256 * 1024;

/// The faces of all files that have another than their own.
#[derive(Debug, Default)]
pub struct Faces(RwLock<Worn>);

#[derive(Debug, Default)]
struct Worn {
    by: HashMap<FileId, FileId>,
    /// Those that are another's now.
    taken: HashSet<FileId>,
}

impl Faces {
    /// Returns the face of a file.
    pub fn of(&self, file: FileId) -> FileId {
        let worn = self.read();
        match worn.by.get(&file) {
            Some(face) => *face,
            // It is gone; if others, who had not seen that, bring it back, it is not what wears its face.
            None if worn.taken.contains(&file) => FileId::of_file(file.bytes().map(|byte| !byte)),
            None => file,
        }
    }

    pub fn has_room(&self) -> bool {
        self.read().by.len() < FACES_MAX
    }

    /// Puts a file in place of another: that one has its face from now on.
    pub fn hand_on(&self, from: FileId, to: FileId) {
        let face = self.of(from);
        let mut worn = self.0.write().unwrap_or_else(PoisonError::into_inner);
        worn.by.remove(&from);
        worn.taken.insert(face);
        if let Some(former) = worn.by.insert(to, face) {
            worn.taken.remove(&former);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Worn> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> FileId {
        FileId::of_file([number; 16])
    }

    #[test]
    fn what_is_put_in_place_of_a_file_keeps_its_face_under_the_name() {
        let faces = Faces::default();
        faces.hand_on(file(2), file(1));
        assert_eq!(faces.of(file(1)), file(2));
        assert!(![file(1), file(2)].contains(&faces.of(file(2))), "it is another if it comes back");
        faces.hand_on(file(3), file(1));
        assert_eq!(faces.of(file(1)), file(3));
        // What was saved is put in place of something itself.
        faces.hand_on(file(1), file(4));
        assert_eq!(faces.of(file(4)), file(3));
        let all: HashSet<_> = (1..=4).map(|number| faces.of(file(number))).collect();
        assert_eq!(all.len(), 4);
    }
}
