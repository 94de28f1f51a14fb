//! Source files: a head that says what they are, a name that says what is in them, a length that
//! a reader can hold.

use super::Tree;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 80;

/// Files and functions that were too long when the rule came.
const LONG_FILES: [&str; 0] = [];
const LONG_FUNCTIONS: [&str; 0] = [];

/// Names for what was not split by what it is.
const NAMELESS: [&str; 6] = ["util", "common", "helpers", "inner", "manager", "base"];

/// Checks that each file begins with its own description.
pub fn check_heads(tree: &Tree) -> Vec<String> {
    let headless = sources(tree).filter(|(_, text)| !text.starts_with("//!"));
    headless.map(|(path, _)| format!("{path}: does not begin with `//!`")).collect()
}

/// Checks that each module has a name.
pub fn check_names(tree: &Tree) -> Vec<String> {
    let nameless = sources(tree).filter(|(path, _)| {
        path.trim_end_matches(".rs")
            .split('/')
            .any(|part| NAMELESS.contains(&part) || NAMELESS.contains(&part.trim_end_matches('s')))
    });
    nameless.map(|(path, _)| format!("{path}: a module is named for what it is")).collect()
}

/// Checks the lengths of files and functions.
pub fn check_lengths(tree: &Tree) -> Vec<String> {
    sources(tree).flat_map(|(path, text)| long_in(path, text)).collect()
}

fn long_in(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !LONG_FILES.contains(&path) {
        complaints.push(format!("{path}: {lines} lines, more than {FILE_LINES_MAX}"));
    }
    for (name, lines) in functions(text) {
        let id = format!("{path}::{name}");
        if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.contains(&id.as_str()) {
            complaints.push(format!("{id}: {lines} lines, more than {FUNCTION_LINES_MAX}"));
        }
    }
    complaints
}

/// Names each function and counts its lines: formatted code closes one at its own indentation.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(&str, usize, usize)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some(name) = function_name(line.trim_start())
            && !line.ends_with([';', '}'])
        {
            open.push((name, indent, number));
        }
        let closes = |(_, at, _): &(&str, usize, usize)| *at == indent;
        if line.trim() == "}" && open.last().is_some_and(closes) {
            let (name, _, first) = open.pop().expect("the last one was just looked at");
            found.push((name, number - first + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    let modifiers = ["pub", "const", "unsafe", "async", "extern", "\"C\""];
    let is_modifier = |word: &&str| modifiers.contains(word) || word.starts_with("pub(");
    let keyword = words.by_ref().find(|word| !is_modifier(word))?;
    (keyword == "fn").then(|| words.next()?.split(['(', '<']).next()).flatten()
}

fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let is_source = |path: &&String| path.ends_with(".rs");
    tree.iter().filter(move |(path, _)| is_source(path)).map(|(p, t)| (p.as_str(), t.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::tree;

    #[test]
    fn a_file_has_a_head() {
        let files = tree(&[("a.rs", "//! What it is.\n"), ("b.rs", "use x;\n"), ("c.md", "")]);
        assert_eq!(check_heads(&files), ["b.rs: does not begin with `//!`"]);
    }

    #[test]
    fn a_module_has_a_name() {
        let files = tree(&[("src/utils.rs", ""), ("src/common/x.rs", ""), ("src/database.rs", "")]);
        assert_eq!(check_names(&files).len(), 2);
    }

    #[test]
    fn long_files_and_functions_are_named() {
        let body = "        x();\n".repeat(FUNCTION_LINES_MAX);
        let long =
            format!("impl A {{\n    pub(crate) async fn long<T>(\n    ) {{\n{body}    }}\n}}\n");
        let complaints = check_lengths(&tree(&[("a.rs", &long)]));
        assert_eq!(complaints, ["a.rs::long: 83 lines, more than 80"]);
        let short = "fn short() {\n    x();\n}\ntrait T {\n    fn none();\n}\n".repeat(20);
        assert!(check_lengths(&tree(&[("a.rs", &short)])).is_empty());
        let file = "// x\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(check_lengths(&tree(&[("a.rs", &file)])).len(), 1);
    }
}
