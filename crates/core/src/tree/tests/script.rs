//! What peers do to paths, as each of them sees those.

use super::*;
use crate::tree::walk::TreePath;

impl World {
    pub fn make(&mut self, who: usize, at: &str, kind: Kind) {
        let create = self.creation(who, at, kind);
        self.commit(who, vec![create]);
    }

    /// Makes a file with a text in it.
    pub fn put(&mut self, who: usize, at: &str, text: &str) {
        let create = self.creation(who, at, Kind::File);
        let Op::Create { file, .. } = create else { unreachable!() };
        self.commit(who, vec![create, text_in(file, text, Vec::new())]);
    }

    pub fn write(&mut self, who: usize, at: &str, text: &str) {
        let file = self.what(who, at).file();
        let heads = self.peers[who].state.file(file).unwrap().heads;
        self.commit(who, vec![text_in(file, text, heads.into_keys().collect())]);
    }

    pub fn chmod(&mut self, who: usize, at: &str, mode: u32) {
        let (file, attribute) = (self.what(who, at).file(), Attribute::Mode(mode));
        self.commit(who, vec![Op::SetAttr { file, attribute }]);
    }

    pub fn rename(&mut self, who: usize, from: &str, to: &str) {
        let link = self.link(who, from);
        let (parent, name) = self.place(who, to);
        self.commit(who, vec![Op::Move { link, parent, name }]);
    }

    pub fn remove(&mut self, who: usize, at: &str) {
        let link = self.link(who, at);
        self.commit(who, vec![Op::Delete { link }]);
    }

    fn what(&self, who: usize, at: &str) -> What {
        self.peers[who].state.walk(path(at).names(), &label).unwrap()
    }

    fn link(&self, who: usize, at: &str) -> LinkId {
        match self.what(who, at) {
            What::Directory(directory) => LinkId::of_directory(directory.first()),
            What::File { link, .. } => link,
            beside @ What::Beside { .. } => panic!("{beside:?}"),
        }
    }

    fn place(&self, who: usize, at: &str) -> (FileId, Name) {
        let at = path(at);
        let (name, parent) = at.names().split_last().unwrap();
        let parent = self.peers[who].state.walk(parent, &label).unwrap();
        assert!(matches!(parent, What::Directory(_)), "{at}");
        (parent.file(), name.clone())
    }

    fn creation(&mut self, who: usize, at: &str, kind: Kind) -> Op {
        let (parent, name) = self.place(who, at);
        let random = self.random();
        let (file, link, former) = if kind == Kind::Directory {
            let state = &self.peers[who].state;
            let (file, former) = state.id_of_new_directory(parent, &name).unwrap();
            (file, LinkId::of_directory(file), former)
        } else {
            (FileId::of_file(random), LinkId::of_file(random), 0)
        };
        let (mode, modified) = (0o644, Stamp::default());
        Op::Create { link, file, parent, name, kind, mode, modified, former }
    }
}

fn path(path: &str) -> TreePath {
    TreePath::try_from(path.as_bytes()).unwrap()
}

fn text_in(file: FileId, text: &str, base: Vec<OpId>) -> Op {
    let (size, content) = (text.len() as u64, Content::Inline(text.into()));
    Op::Write { file, size, content, base, fence: None }
}
