//! Versions that are not shown beside their files.

use gate_core::tree::op::{Content, Op};

use super::saves::{file_at, make, name, quiet, read, shown};
use super::*;

/// What would be in the way beside its file is in `.conflicts`: it can be read, taken out and removed, and that is all.
#[test]
fn nothing_is_put_into_conflicts_and_what_is_there_is_taken_out() {
    let world = quiet();
    let live = world.live();
    let root = Directory::root();
    make(live, "x.db", b"old");
    live.settle().unwrap();
    let file = file_at(live, "x.db");
    for text in [b"one", b"two"] {
        let content = Content::Inline(text.to_vec());
        let write = Op::Write { file, size: 3, content, base: Vec::new(), fence: None };
        live.lock().unwrap().commit(&[write], Vec::new(), 1).unwrap();
    }
    assert_eq!(live.list(&root).unwrap().len(), 2);
    let what = live.find(&root, &name(".conflicts")).unwrap().unwrap();
    let What::Directory(aside) = &what else { panic!("{what:?}") };
    let facts = live.facts(&what).unwrap();
    assert_eq!((facts.kind, facts.mode), (Kind::Directory, 0o555));
    let losers = live.list(aside).unwrap();
    let texts: Vec<_> =
        losers.iter().map(|shown| read(&live.open(&shown.what, false).unwrap())).collect();
    assert_eq!(texts.len(), 2);
    assert!(texts.contains(&b"old".to_vec()) && texts.contains(&b"one".to_vec()), "{texts:?}");
    let first = (aside, &losers[0].name);
    let refused = [
        live.make_file(aside, &name("f"), &Kind::File, 0o644).map(drop),
        live.make_directory(aside, &name("d"), 0o755).map(drop),
        live.remove(&root, &name(".conflicts"), true),
        live.set_mode(&what, 0o700),
        live.rename((&root, &name("x.db")), (aside, &name("f")), IfThere::Succeed, ME).map(drop),
        live.rename((&root, &name(".conflicts")), (&root, &name("c")), IfThere::Replace, ME)
            .map(drop),
        live.rename(first, (&root, &name("x.db")), IfThere::Exchange, ME).map(drop),
        live.open(&losers[0].what, true).map(drop),
    ];
    for (number, outcome) in refused.into_iter().enumerate() {
        assert!(matches!(outcome, Err(DraftError::IsBeside)), "{number}: {outcome:?}");
    }
    live.rename(first, (&root, &name("out")), IfThere::Succeed, ME).unwrap();
    live.remove(aside, &losers[1].name, false).unwrap();
    live.settle().unwrap();
    let expected = [("out", texts[0].clone()), ("x.db", b"two".to_vec())];
    assert_eq!(shown(live), expected.map(|(name, bytes)| (name.to_owned(), bytes)).into());
}
