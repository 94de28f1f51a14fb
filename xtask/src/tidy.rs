//! `cargo xtask tidy`: the rules of the house that no compiler and no lint keeps.
//!
//! Each check is a function from texts to complaints, so that it is tested without a repository.
//! A ratchet lists what was too large when its rule came; entries may only be taken away.

mod docs;
mod layers;
mod source;

use std::collections::BTreeMap;
use std::process::Command;

use crate::machine;
use crate::step::{Failure, output};

/// How many packages, ours among them, the lock file may name; raise it by hand, with a reason.
const PACKAGES_MAX: usize = 342;

/// Licences that may go into the binary without asking anybody.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The texts of a tree, by path.
pub type Tree = BTreeMap<String, String>;

/// Checks the repository.
pub fn run() -> Result<(), Failure> {
    let tree = read_tree()?;
    let mut complaints = check(&tree);
    let list = ["tree", "--workspace", "--edges", "normal,build", "--prefix", "none"];
    let licences = output(machine::cargo(&list).args(["--format", "{p}|{l}"]))?;
    complaints.extend(check_licences(&licences));
    if complaints.is_empty() {
        return Ok(());
    }
    let failure = Failure::new("the house is not tidy", format!("\n{}", complaints.join("\n")));
    Err(failure.hint("CONTRIBUTING.md has the rules"))
}

fn check(tree: &Tree) -> Vec<String> {
    let checks = [
        layers::check,
        source::check_heads,
        source::check_names,
        source::check_lengths,
        docs::check_paths,
        docs::check_never_list,
        docs::check_promises,
        check_number_of_packages,
    ];
    checks.iter().flat_map(|check| check(tree)).collect()
}

/// Reads what git tracks or would track.
fn read_tree() -> Result<Tree, Failure> {
    let words = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let list = output(Command::new("git").args(words))?;
    // What is no text, or deleted and not yet committed, is nobody's business here.
    let read = |path: &str| Some((path.to_owned(), std::fs::read_to_string(path).ok()?));
    Ok(list.lines().filter_map(read).collect())
}

fn check_number_of_packages(tree: &Tree) -> Vec<String> {
    let lock = tree.get("Cargo.lock").map_or("", String::as_str);
    let count = lock.lines().filter(|line| *line == "[[package]]").count();
    let complaint = || format!("Cargo.lock: {count} packages, at most {PACKAGES_MAX} are allowed");
    (count > PACKAGES_MAX).then(complaint).into_iter().collect()
}

/// Lines of `package|licence expression`.
fn check_licences(list: &str) -> Vec<String> {
    let mut complaints: Vec<String> = list
        .lines()
        .filter_map(|line| line.split_once('|'))
        .filter(|(_, licence)| !is_allowed(licence.trim_end_matches(" (*)")))
        .map(|(package, licence)| format!("{package}: its licence is `{licence}`"))
        .collect();
    complaints.dedup();
    complaints
}

/// Tells whether an expression of alternatives and conjunctions can be met by allowed licences.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace(['(', ')'], "").replace('/', " OR ");
    let met = |side: &str| side.split(" AND ").all(|name| LICENCES.contains(&name.trim()));
    // `(A OR B) AND C` reads as `A OR B AND C`: every C is still required of some alternative.
    expression.split(" OR ").any(met)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a tree of paths and texts.
    pub(in crate::tidy) fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn licences_are_met_by_one_alternative() {
        let check = |licence: &str| check_licences(&format!("x v1|{licence}")).is_empty();
        assert!(check("MIT OR Apache-2.0"));
        assert!(check("MIT/GPL-3.0"));
        assert!(check("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(check("Apache-2.0 WITH LLVM-exception (*)"));
        assert!(!check("GPL-3.0-only"));
        assert!(!check("MIT AND GPL-3.0"));
        assert!(!check(""));
    }

    #[test]
    fn the_number_of_packages_has_a_ceiling() {
        let lock = |count| tree(&[("Cargo.lock", &"[[package]]\nname = \"x\"\n".repeat(count))]);
        assert!(check_number_of_packages(&lock(PACKAGES_MAX)).is_empty());
        assert_eq!(check_number_of_packages(&lock(PACKAGES_MAX + 1)).len(), 1);
    }
}
