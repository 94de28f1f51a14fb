//! Which names are gated.
//!
//! A rule is a glob and what happens to opens of names that match; the last rule that matches
//! decides, and a name that none matches is gated. Globs read as in `.gitignore`: without a slash
//! they match a name in any directory, with a slash at the end a directory and all beneath it,
//! with a slash elsewhere a path from the source's root.

use std::time::Duration;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// What happens to an open of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// It takes its turn.
    Gated,
    /// It takes no keys, and holds do not stop it.
    None,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which names.
    pub glob: String,
    /// What happens to them.
    pub gating: Gating,
}

/// The rules of a view, compiled.
#[derive(Clone, Debug)]
pub struct Policies {
    rules: Vec<Rule>,
    globs: GlobSet,
    read_wait: Option<Duration>,
}

/// The rules of a view as it tells them to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Weakest first, as [`Rule::parse`] reads them.
    policies: Vec<String>,
    /// After how long a reader passes idle handles.
    read_wait: Option<Duration>,
}

/// A glob that cannot be understood.
#[derive(Debug)]
pub struct BadGlob {
    /// The glob as written.
    pub glob: String,
    /// What is wrong with it.
    pub reason: String,
}

/// After how long a reader passes idle handles, unless told otherwise.
pub const READ_WAIT_DEFAULT: Duration = Duration::from_secs(30);

/// Names that programs share by means of their own: logs, databases, build output, lock files.
const SHIPPED_NONE: &[&str] = &[
    "*.log",
    "*.pid",
    "*.sock",
    ".*.sw?",
    "*.db",
    "*.db-{wal,shm,journal}",
    "*.sqlite",
    "*.sqlite-{wal,shm,journal}",
    "*.sqlite3",
    "*.sqlite3-{wal,shm,journal}",
    "target/",
    "node_modules/.cache/",
    "*.lock",
];

/// Exceptions: git's own locks, and the files in which package managers pin versions.
const SHIPPED_GATED: &[&str] =
    &["**/.git/**/*.lock", "{Cargo,yarn,poetry,Gemfile,composer,flake,uv,pdm,mix,pubspec}.lock"];

impl Rule {
    /// Returns the rules that Gate ships.
    pub fn shipped() -> Vec<Rule> {
        let rule = |gating| move |glob: &&str| Rule { glob: (*glob).to_owned(), gating };
        let none = SHIPPED_NONE.iter().map(rule(Gating::None));
        none.chain(SHIPPED_GATED.iter().map(rule(Gating::Gated))).collect()
    }

    /// Parses `GLOB=none` or `GLOB=gated`.
    pub fn parse(text: &str) -> Result<Rule, BadGlob> {
        let bad = |reason: &str| BadGlob { glob: text.to_owned(), reason: reason.to_owned() };
        let (glob, gating) = text.rsplit_once('=').ok_or_else(|| bad("write it as GLOB=none"))?;
        let gating = match gating {
            "none" => Gating::None,
            "gated" => Gating::Gated,
            _ => return Err(bad("after the `=` comes `none` or `gated`")),
        };
        if glob.is_empty() {
            return Err(bad("the glob is empty"));
        }
        Ok(Rule { glob: glob.to_owned(), gating })
    }
}

impl Rules {
    /// Compiles them.
    pub fn policies(&self) -> Result<Policies, BadGlob> {
        let rules = self.policies.iter().map(|text| Rule::parse(text));
        Policies::new(rules.collect::<Result<_, _>>()?, self.read_wait)
    }
}

impl Policies {
    /// Compiles rules, weakest first. `read_wait` is `None` where readers wait for ever.
    pub fn new(rules: Vec<Rule>, read_wait: Option<Duration>) -> Result<Policies, BadGlob> {
        let mut set = GlobSetBuilder::new();
        for rule in &rules {
            let bad = |error: globset::Error| BadGlob {
                glob: rule.glob.clone(),
                reason: error.kind().to_string(),
            };
            let glob = GlobBuilder::new(&pattern(&rule.glob))
                .literal_separator(true)
                .build()
                .map_err(bad)?;
            set.add(glob);
        }
        let globs = set
            .build()
            .map_err(|error| BadGlob { glob: String::new(), reason: error.kind().to_string() })?;
        Ok(Policies { rules, globs, read_wait })
    }

    /// Says what happens to an open of a path, relative to the source's root.
    pub fn gating(&self, path: &[u8]) -> Gating {
        self.rule_of(path).map_or(Gating::Gated, |rule| rule.gating)
    }

    /// Returns the rule that decides about a path, if one matches.
    pub fn rule_of(&self, path: &[u8]) -> Option<&Rule> {
        let candidate = Candidate::from_bytes(path);
        let last = self.globs.matches_candidate(&candidate).into_iter().max();
        last.map(|rule| &self.rules[rule])
    }

    /// Returns after how long a reader passes idle handles.
    pub fn read_wait(&self) -> Option<Duration> {
        self.read_wait
    }

    /// Returns the rules in a form that is equal when they are.
    pub fn canonical(&self) -> String {
        self.written().collect::<Vec<_>>().join(" ")
    }

    /// Returns all that they were made of.
    pub fn rules(&self) -> Rules {
        Rules { policies: self.written().collect(), read_wait: self.read_wait }
    }

    fn written(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| match rule.gating {
            Gating::Gated => format!("{}=gated", rule.glob),
            Gating::None => format!("{}=none", rule.glob),
        })
    }
}

/// Returns the glob over whole paths that a rule's glob stands for.
fn pattern(glob: &str) -> String {
    let (body, beneath) = match glob.strip_suffix('/') {
        Some(body) => (body, "/**"),
        None => (glob, ""),
    };
    match body.strip_prefix('/') {
        Some(anchored) => format!("{anchored}{beneath}"),
        None if body.starts_with("**/") || (body.contains('/') && beneath.is_empty()) => {
            format!("{body}{beneath}")
        }
        None => format!("**/{body}{beneath}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &[&str], path: &str, expected: Gating) {
        let mut all = Rule::shipped();
        all.extend(rules.iter().map(|rule| Rule::parse(rule).unwrap()));
        let policies = Policies::new(all, None).unwrap();
        assert_eq!(policies.gating(path.as_bytes()), expected, "{path}");
    }

    #[test]
    fn the_shipped_list_leaves_logs_databases_and_build_output_alone() {
        for path in [
            "app.log",
            "deep/er/app.log",
            "run.pid",
            "x.sock",
            "src/.main.rs.swp",
            "data.db",
            "a/data.db-wal",
            "q.sqlite3-journal",
            "target/debug/x",
            "crates/a/target/x.o",
            "web/node_modules/.cache/x",
            "apt.lock",
        ] {
            check(&[], path, Gating::None);
        }
    }

    #[test]
    fn everything_else_is_gated() {
        for path in [
            "src/main.rs",
            "Cargo.lock",
            "web/yarn.lock",
            "pubspec.lock",
            ".git/index.lock",
            "sub/.git/refs/heads/main.lock",
            "logs/readme",
            "target.txt",
            "node_modules/x.js",
            ".swx",
        ] {
            check(&[], path, Gating::Gated);
        }
    }

    #[test]
    fn the_last_rule_decides() {
        check(&["*.log=gated"], "a/b.log", Gating::Gated);
        check(&["/build/=none"], "build/x/y", Gating::None);
        check(&["/build/=none"], "sub/build/x", Gating::Gated);
        check(&["docs/*.md=none"], "docs/a.md", Gating::None);
        check(&["docs/*.md=none"], "docs/sub/a.md", Gating::Gated);
    }

    #[test]
    fn names_that_are_not_utf8_match_too() {
        let policies = Policies::new(Rule::shipped(), None).unwrap();
        assert_eq!(policies.gating(b"\xff\xfe.log"), Gating::None);
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in ["*.log", "=none", "*.log=never"] {
            assert_eq!(Rule::parse(text).unwrap_err().glob, text);
        }
        let rule = Rule::parse("a[=none").unwrap();
        assert_eq!(Policies::new(vec![rule], None).unwrap_err().glob, "a[");
    }
}
