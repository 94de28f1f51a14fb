//! The words after `cargo xtask bench`.

use std::path::{Path, PathBuf};

use super::view::{BUCKET_ROWS, On, Plan, ROWS, Row};
use super::{GROUPS, Group, PROFILE};
use crate::step::Failure;

/// The name of what is measured of a bucket's store, beside the names of rows.
const STORE: &str = "store";
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
    let (rows, bucket_rows) = (ROWS.iter().collect(), BUCKET_ROWS.iter().collect());
    let mut plan = Plan { rows, bucket_rows, has_store: true, on: On::Ext4, files: FILES };
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
    if !rows.is_empty() && group == Some("bucket") {
        plan.has_store = rows.contains(&STORE);
        let rows = rows.iter().filter(|name| **name != STORE);
        plan.bucket_rows = rows.map(|name| row(&BUCKET_ROWS, name)).collect::<Result<_, _>>()?;
    } else if !rows.is_empty() {
        plan.rows = rows.iter().map(|name| row(&ROWS, name)).collect::<Result<_, _>>()?;
    }
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

fn row(rows: &'static [Row], name: &str) -> Result<&'static Row, Failure> {
    rows.iter().find(|row| row.name == name).ok_or_else(|| {
        let known: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let failure = misread(format!("no row of the group has the name {name}"));
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
            Ok(Wish { groups, plan: Plan { rows, bucket_rows, has_store, on, files }, json }) => {
                let groups: Vec<&str> = groups.iter().map(|group| group.name).collect();
                let store = if has_store { "store " } else { "" };
                let rows = [rows.len(), bucket_rows.len()];
                format!("{groups:?} {rows:?} {store}{on:?} {files} {json:?}")
            }
        };
        assert_eq!(said, expect);
    }

    #[test]
    fn words_choose_groups_and_rows() {
        let (all, sealed) = (ROWS.len(), BUCKET_ROWS.len());
        let every = GROUPS.map(|group| group.name);
        let whole = format!("[{all}, {sealed}] store Ext4 20000 None");
        check("", &format!("{every:?} {whole}"));
        check("view", &format!("[\"view\"] {whole}"));
        check("broker", &format!("[\"turns\", \"scale\"] {whole}"));
        check("profile open", &format!("[\"profile\"] [1, {sealed}] store Ext4 20000 None"));
        let two = format!("[2, {sealed}] store Tmpfs 9 None");
        check("view open save --on tmpfs --files 9", &format!("[\"view\"] {two}"));
        let one = format!("[1, {sealed}] store Dir(\"/at/d\") 20000 Some(\"/at/f\")");
        check("view rg --on d --json f", &format!("[\"view\"] {one}"));
        check("bucket read", &format!("[\"bucket\"] [{all}, 1] Ext4 20000 None"));
        check("bucket store", &format!("[\"bucket\"] [{all}, 0] store Ext4 20000 None"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        check("views", "no group has the name views");
        check("view opn", "no row of the group has the name opn");
        check("bucket pause", "no row of the group has the name pause");
        check("view --files many", "many is no number of files");
        check("view --on", "--on wants a value");
        check("--in x", "--in is no option");
    }
}
