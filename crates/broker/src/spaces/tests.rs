//! Sources and spaces: who joins whom, and who is refused.

use std::path::Path;
use std::time::Duration;

use gate_api::source;
use gate_api::wire::{Origin, Rules, Source};

use super::{DEFAULT_ID, Spaces};

fn spaces() -> Spaces {
    Spaces::restore(Vec::new())
}

fn of(path: &Path) -> Source {
    Source {
        origin: Origin::Directory(source::directory(path).unwrap()),
        space: None,
        by_host_and_port: false,
        rules: Some(Rules { read_wait: Some(Duration::from_secs(30)), policies: String::new() }),
    }
}

fn by_port(path: &Path) -> Source {
    Source { by_host_and_port: true, ..of(path) }
}

fn in_space(path: &Path, name: &str) -> Source {
    Source { space: Some(name.to_owned()), ..of(path) }
}

#[test]
fn a_source_inside_a_served_one_joins_with_a_prefix() {
    let home = tempfile::tempdir().unwrap();
    let inner = home.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    let mut spaces = spaces();
    let (whole, attached) = spaces.attach(of(home.path())).unwrap();
    assert!(attached.prefix.is_root() && attached.notice.is_none());
    let (part, attached) = spaces.attach(of(&inner)).unwrap();
    assert_eq!((part.space, attached.prefix.to_string()), (whole.space, "a/b".to_owned()));
    assert_eq!(spaces.get(whole.space).unwrap().clients, 2);
    let path = inner.join("f");
    let (space, path) = spaces.of_absolute(path.as_os_str().as_encoded_bytes()).unwrap();
    assert_eq!((space, path.to_string()), (whole.space, "a/b/f".to_owned()));
}

#[test]
fn a_source_above_a_served_one_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let inner = home.path().join("a");
    std::fs::create_dir(&inner).unwrap();
    let mut spaces = spaces();
    spaces.attach(of(&inner)).unwrap();
    let refusal = spaces.attach(of(home.path())).unwrap_err();
    assert!(refusal.reason.contains("contains"), "{refusal:?}");
}

#[test]
fn rules_that_differ_are_refused_with_both_shown() {
    let home = tempfile::tempdir().unwrap();
    let mut spaces = spaces();
    let (seat, _) = spaces.attach(of(home.path())).unwrap();
    let mut other = of(home.path());
    other.rules = Some(Rules { read_wait: None, policies: String::new() });
    let refusal = spaces.attach(other.clone()).unwrap_err();
    assert!(refusal.reason.contains("30s") && refusal.reason.contains("for ever"), "{refusal:?}");
    spaces.detach(seat.space);
    assert!(spaces.attach(other).is_ok(), "nobody sees the former rules any more");
}

#[test]
fn the_first_source_by_port_binds_the_default_space_and_the_next_is_told() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut spaces = spaces();
    let (seat, attached) = spaces.attach(by_port(one.path())).unwrap();
    assert_eq!((seat.space, attached.notice), (DEFAULT_ID, None));
    let (seat, attached) = spaces.attach(by_port(other.path())).unwrap();
    assert_ne!(seat.space, DEFAULT_ID);
    assert!(attached.notice.unwrap().contains("of its own"));
}

#[test]
fn a_name_is_that_of_one_source() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut spaces = spaces();
    let (_, attached) = spaces.attach(in_space(one.path(), "work")).unwrap();
    assert_eq!(attached.space, "work");
    let taken = spaces.attach(in_space(other.path(), "work")).unwrap_err();
    assert!(taken.reason.contains("work"), "{taken:?}");
    let renamed = spaces.attach(in_space(one.path(), "play")).unwrap_err();
    assert!(renamed.fix.contains("--space work"), "{renamed:?}");
}

#[test]
fn what_nobody_uses_is_forgotten_and_may_be_served_by_another_broker() {
    let home = tempfile::tempdir().unwrap();
    let [mut first, mut second] = [spaces(), spaces()];
    let (seat, _) = first.attach(of(home.path())).unwrap();
    let refusal = second.attach(of(home.path())).unwrap_err();
    assert!(refusal.reason.contains("served by"), "{refusal:?}");
    first.detach(seat.space);
    assert_eq!(first.forget_unused(|_| true), []);
    assert_eq!(first.forget_unused(|_| false), [seat.space]);
    second.attach(of(home.path())).unwrap();
}
