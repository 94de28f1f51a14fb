//! Scripts that must do in the view what they do on the bare directory.

use std::path::Path;
use std::time::Duration;

use crate::run::Run;
use crate::tree;
use crate::world::World;

/// Fixed, so that git's object names are the same in both places.
const GIT: [(&str, &str); 7] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_AUTHOR_NAME", "ada"),
    ("GIT_AUTHOR_EMAIL", "ada@example.org"),
    ("GIT_AUTHOR_DATE", "1000000000 +0000"),
    ("GIT_COMMITTER_NAME", "ada"),
    ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ("GIT_COMMITTER_DATE", "1000000000 +0000"),
];

impl World {
    /// Runs a script in the twin and in the view and asserts the same output and the same tree.
    ///
    /// What lies below the names in `unstable` may differ; the view always shows its source.
    #[track_caller]
    pub fn same_as_bare(&self, script: &str, deadline: Duration, unstable: &[&str]) {
        self.says_as_bare(script, deadline);
        self.looks_as_bare(unstable);
    }

    /// Runs a script in the twin and in the view and asserts the same output.
    #[track_caller]
    pub fn says_as_bare(&self, script: &str, deadline: Duration) {
        let [expected, found] = [self.twin(), self.view()].map(|dir| {
            let outcome = self.git_script(&dir, script).within(deadline).run();
            let path = dir.to_str().expect("a world's path is ASCII").to_owned();
            assert_eq!(outcome.code, Some(0), "{outcome}{}", self.happened());
            outcome.stdout.replace(&path, "DIR")
        });
        assert_eq!(found, expected, "another output in the view than on the bare directory");
    }

    /// Returns what the broker wrote down last.
    fn happened(&self) -> String {
        self.gate(["log", "--limit", "400"]).run().stdout
    }

    /// Asserts that the view shows what the twin has, but for what lies below some names.
    #[track_caller]
    pub fn looks_as_bare(&self, unstable: &[&str]) {
        tree::assert_same(&self.twin(), &self.view(), unstable);
        tree::assert_same(&self.view(), &self.source(), &[]);
    }

    /// Prepares a script whose commits are the same wherever it runs.
    #[must_use]
    pub fn git_script(&self, dir: &Path, script: &str) -> Run {
        GIT.iter().fold(self.script(dir, script), |run, (name, value)| run.env(name, value))
    }
}
