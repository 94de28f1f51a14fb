//! Papers that name code: what they name must be there.

use super::Tree;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// Where promises are made, and which of their list items need a test: of what a view promises those
/// that tell where it differs (`* `), too, of threats those that are met.
const PROMISING: [(&str, &[&str]); 2] =
    [("docs/semantics.md", &["- ", "* "]), ("docs/threats.md", &["- "])];

/// Begins a table of promises.
const TABLE_HEAD: &str = "| promise | test |";

/// Checks that every path named in ARCHITECTURE.md exists.
pub fn check_paths(tree: &Tree) -> Vec<String> {
    let text = tree.get(ARCHITECTURE).map_or("", String::as_str);
    quoted(text)
        .filter(|word| is_path(word) && !exists(tree, word))
        .map(|word| format!("{ARCHITECTURE}: there is no `{word}`"))
        .collect()
}

/// Checks that each thing that never happens is guarded by a test that carries its number.
pub fn check_never_list(tree: &Tree) -> Vec<String> {
    let text = tree.get(ARCHITECTURE).map_or("", String::as_str);
    let mut complaints = Vec::new();
    for row in text.lines().filter(|line| line.starts_with("| N")) {
        let number = row.trim_start_matches("| ").split(' ').next().unwrap_or_default();
        if !tests(tree).any(|test| names_number(test, number)) {
            complaints.push(format!("{ARCHITECTURE}: no test carries {number}"));
        }
        complaints.extend(missing_tests(tree, ARCHITECTURE, row));
    }
    complaints
}

/// Checks that each promise, and each exception, names a test that exists.
pub fn check_promises(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (paper, marks) in PROMISING {
        let text = tree.get(paper).map_or("", String::as_str);
        for promise in items(text, marks) {
            if !quoted(&promise).any(is_test_name) {
                complaints.push(format!("{paper}: names no test: {promise}"));
            }
            complaints.extend(missing_tests(tree, paper, &promise));
        }
    }
    complaints
}

fn missing_tests(tree: &Tree, paper: &str, text: &str) -> Vec<String> {
    quoted(text)
        .filter(|word| is_test_name(word))
        .filter(|word| {
            let head = format!("fn {}(", word.rsplit("::").next().unwrap_or(word));
            !tests(tree).any(|test| test.contains(&head))
        })
        .map(|word| format!("{paper}: there is no test `{word}`"))
        .collect()
}

/// Files in which tests stand.
fn tests(tree: &Tree) -> impl Iterator<Item = &str> {
    let files = tree.iter().filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("xtask"));
    files
        .map(|(_, text)| text.as_str())
        .filter(|text| text.contains("#[test]") || text.contains("proptest!"))
}

/// `N1` is not named by `N16`.
fn names_number(text: &str, number: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    text.match_indices(number).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + number.len()..].starts_with(is_word)
    })
}

/// List items that begin with one of the marks, with the lines that continue them, and the rows of
/// tables of promises.
fn items(text: &str, marks: &[&str]) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let (mut is_open, mut is_table) = (false, false);
    for line in text.lines() {
        if is_table && line.starts_with("| ") {
            items.push(line.to_owned());
        } else if let Some(item) = marks.iter().find_map(|mark| line.strip_prefix(mark)) {
            items.push(item.to_owned());
            is_open = true;
        } else if is_open && line.starts_with("  ") {
            let last = items.last_mut().expect("an open item is the last");
            last.push(' ');
            last.push_str(line.trim());
        } else {
            is_open = false;
        }
        is_table = line == TABLE_HEAD || (is_table && line.starts_with('|'));
    }
    items
}

/// What stands between backticks on one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn is_path(word: &str) -> bool {
    let is_path_char = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    word.contains('/') && !word.starts_with('/') && word.chars().all(is_path_char)
}

fn exists(tree: &Tree, path: &str) -> bool {
    let dir = format!("{}/", path.trim_end_matches('/'));
    tree.contains_key(path) || tree.keys().any(|known| known.starts_with(&dir))
}

/// A module path, or a name of several words.
fn is_test_name(word: &str) -> bool {
    let is_name_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
    word.chars().all(is_name_char) && (word.contains("::") || word.matches('_').count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::tree;

    const TEST: &str = "/// N1: never.\n#[test]\nfn writers_take_their_turns() {}\n";

    #[test]
    fn paths_exist() {
        let text = "See `crates/core/`, `xtask/src/none.rs`, `/etc/fuse.conf` and `fn main`.";
        let files = tree(&[(ARCHITECTURE, text), ("crates/core/src/lib.rs", "")]);
        assert_eq!(check_paths(&files), ["ARCHITECTURE.md: there is no `xtask/src/none.rs`"]);
    }

    #[test]
    fn numbers_have_tests_and_named_tests_exist() {
        let text = "| N1 | two owners | `turns::writers_take_their_turns` |\n\
                    | N16 | guesses | |\n| N2 | order | `a_test_of_old` |\n";
        let files = tree(&[(ARCHITECTURE, text), ("tests/it/turns.rs", TEST)]);
        let expected = [
            "ARCHITECTURE.md: no test carries N16",
            "ARCHITECTURE.md: no test carries N2",
            "ARCHITECTURE.md: there is no test `a_test_of_old`",
        ];
        assert_eq!(check_never_list(&files), expected);
    }

    #[test]
    fn promises_name_tests() {
        let text = "# Semantics\n- Turns are kept:\n  `writers_take_their_turns`.\n- Hope.\n\n  text\n* But:\n  no.\n";
        let table = "| promise | test |\n|---|---|\n| Turns | `writers_take_their_turns` |\n\
                     | Faith | |\n\n| who | what |\n|---|---|\n| all | something |\n";
        let text = format!("{text}{table}");
        let complaints = |paper: &str| {
            let files = tree(&[(paper, &text), ("tests/it/turns.rs", TEST)]);
            check_promises(&files)
        };
        let unmet = |paper: &str, item: &str| format!("{paper}: names no test: {item}");
        let threats = "docs/threats.md";
        let expected = ["Hope.", "| Faith | |"].map(|item| unmet(threats, item));
        assert_eq!(complaints(threats), expected);
        let semantics = "docs/semantics.md";
        let expected = ["Hope.", "But: no.", "| Faith | |"].map(|item| unmet(semantics, item));
        assert_eq!(complaints(semantics), expected);
    }
}
