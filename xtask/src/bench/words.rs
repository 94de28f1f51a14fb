//! The words after `cargo xtask bench`.

use std::path::{Path, PathBuf};

use super::view::{On, Plan, ROWS, Row};
use super::{GROUPS, Group, PROFILE};
use crate::step::Failure;

/// How many files are many, unless it is said.
const FILES: usize = 20_000;

/// What is to be measured.
pub struct Wish {
    pub groups: Vec<&'static Group>,
    /// What the group of the view is to do.
    pub plan: Plan,
    /// Where the figures go besides.
    pub json: Option<PathBuf>,
}

/// Reads the words; paths are relative to `dir`.
pub fn parse(words: &[&str], dir: &Path) -> Result<Wish, Failure> {
    let mut plan = Plan { rows: Vec::new(), on: On::Ext4, files: FILES };
    let mut json = None;
    let mut names = Vec::new();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| misread(format!("{word} wants a value")));
        match word {
            "--on" => plan.on = On::parse(value()?, dir),
            "--json" => json = Some(dir.join(value()?)),
            "--files" => plan.files = count(value()?)?,
            flag if flag.starts_with('-') => return Err(misread(format!("{flag} is no option"))),
            name => names.push(name),
        }
    }
    let (group, rows) = match names.split_first() {
        None => (None, &[][..]),
        Some((group, rows)) => (Some(*group), rows),
    };
    plan.rows = match rows {
        [] => ROWS.iter().collect(),
        names => names.iter().map(|name| row(name)).collect::<Result<_, _>>()?,
    };
    Ok(Wish { groups: groups(group)?, plan, json })
}

fn count(text: &str) -> Result<usize, Failure> {
    match text.parse() {
        Ok(files) if files > 0 => Ok(files),
        _ => Err(misread(format!("{text} is no number of files"))),
    }
}

fn groups(name: Option<&str>) -> Result<Vec<&'static Group>, Failure> {
    let chosen =
        |group: &&Group| name.is_none_or(|name| name == group.name || name == group.part_of);
    let all = GROUPS.iter().chain(name.map(|_| &PROFILE));
    let groups: Vec<&Group> = all.filter(chosen).collect();
    if groups.is_empty() {
        let mut known: Vec<&str> =
            GROUPS.iter().chain([&PROFILE]).flat_map(|g| [g.name, g.part_of]).collect();
        known.dedup();
        let failure = misread(format!("no group has the name {}", name.unwrap_or_default()));
        return Err(failure.hint(format!("choose one of: {}", known.join(", "))));
    }
    Ok(groups)
}

fn row(name: &str) -> Result<&'static Row, Failure> {
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        let failure = misread(format!("no row of the view has the name {name}"));
        failure.hint(format!("choose some of: {}", known.join(", ")))
    })
}

fn misread(cause: String) -> Failure {
    Failure::new("cannot tell what to measure", cause)
        .hint("cargo xtask bench [NAME] [--on ext4|tmpfs|DIR] [--files N] [--json FILE]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &str, expect: &str) {
        let words: Vec<&str> = words.split_whitespace().collect();
        let said = match parse(&words, Path::new("/at")) {
            Err(failure) => failure.cause,
            Ok(Wish { groups, plan: Plan { rows, on, files }, json }) => {
                let groups: Vec<&str> = groups.iter().map(|group| group.name).collect();
                format!("{groups:?} {} {on:?} {files} {json:?}", rows.len())
            }
        };
        assert_eq!(said, expect);
    }

    #[test]
    fn words_choose_groups_and_rows() {
        let all = ROWS.len();
        let every = GROUPS.map(|group| group.name);
        check("", &format!("{every:?} {all} Ext4 20000 None"));
        check("view", &format!("[\"view\"] {all} Ext4 20000 None"));
        check("broker", &format!("[\"turns\", \"scale\"] {all} Ext4 20000 None"));
        check("profile open", "[\"profile\"] 1 Ext4 20000 None");
        check("view open save --on tmpfs --files 9", "[\"view\"] 2 Tmpfs 9 None");
        check("view rg --on d --json f", "[\"view\"] 1 Dir(\"/at/d\") 20000 Some(\"/at/f\")");
    }

    #[test]
    fn what_cannot_be_is_named() {
        check("views", "no group has the name views");
        check("view opn", "no row of the view has the name opn");
        check("view --files many", "many is no number of files");
        check("view --on", "--on wants a value");
        check("--in x", "--in is no option");
    }
}
