//! Whether anything that was done is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::play::{Story, all};

impl Story {
    /// Asserts that each edit that was done is found: in the tree, in what was committed, or among
    /// what the guard has kept.
    pub fn assert_nothing_is_lost(&self) {
        let source = self.world.source();
        let in_tree = marks(&source.join("src"));
        let history = self.world.script(&source, "git log -p --all").run().success();
        let committed: BTreeSet<String> = words(&history).collect();
        let mut found = [0; 3];
        let mut kept = BTreeMap::new();
        let mut lost = Vec::new();
        for (mark, file) in self.edits() {
            let mut is_kept = || {
                let known = kept.entry(file.clone()).or_insert_with(|| self.kept_of(&file));
                known.contains(&mark)
            };
            let place = match () {
                () if in_tree.contains(&mark) => 0,
                () if committed.contains(&mark) => 1,
                () if is_kept() => 2,
                () => {
                    lost.push(self.told_of(&mark, &file));
                    continue;
                }
            };
            found[place] += 1;
        }
        let [tree, history, kept] = found;
        println!("edits: in the tree {tree}, else committed {history}, else kept {kept}");
        assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
        self.world.script(&source, "git fsck --strict --no-progress").run().success();
    }

    /// Says all that is known of an edit that is lost.
    fn told_of(&self, mark: &str, file: &str) -> String {
        let bare = fs::read_to_string(self.bare().join(file)).unwrap_or_default();
        let is_bare = words(&bare).any(|word| word == mark);
        let log = self.world.gate(["log", "--json", "--limit", "1000", file]);
        let log = log.dir(self.world.source()).run().stdout;
        let records = all().map(|name| self.record_of(name));
        let deeds: Vec<String> = records
            .flat_map(|record| record.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.contains(file))
            .collect();
        format!("{mark} in {file}; on the bare directory: {is_bare}\n{deeds:#?}\n{bare}\n{log}")
    }

    /// Asserts that who held many files found all of them as it had left them.
    pub fn assert_nothing_was_torn(&self) {
        for name in all() {
            let record = self.record_of(name);
            let torn: Vec<_> = record.lines().filter(|line| line.contains("torn:")).collect();
            assert!(torn.is_empty(), "{name}: {torn:?}");
        }
    }

    /// Asserts that everything that was tried was done.
    pub fn assert_all_was_done(&self, said: &BTreeMap<&'static str, String>) {
        for name in all() {
            let record = self.record_of(name);
            let wrong: Vec<_> = record.lines().filter(|line| line.starts_with("failed")).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?}\n{}", said[name]);
        }
    }

    /// Returns the mark of each edit that was done, and the file that it was done to.
    fn edits(&self) -> Vec<(String, String)> {
        let of = |name: &str| -> Vec<(String, String)> {
            let record = self.record_of(name);
            let done = record.lines().filter_map(|line| {
                let mut words = line.strip_prefix("done ")?.split(' ').skip(1);
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            });
            done.collect()
        };
        all().flat_map(of).collect()
    }

    /// Returns what was kept of a file, and of what was to become it when its writer was killed.
    fn kept_of(&self, file: &str) -> BTreeSet<String> {
        let source = self.world.source();
        let restore = |path: &Path| self.world.gate(["restore".as_ref(), path.as_os_str()]);
        let list = restore(&source).args(["--list", "--json"]).run();
        if list.stderr.contains("nothing is known") {
            return BTreeSet::new();
        }
        let list: Value = serde_json::from_str(&list.success()).unwrap();
        let versions = list["versions"].as_array().unwrap().iter();
        let kept = versions.filter(|version| version["is_kept"] == true).filter_map(|version| {
            let path = version["path"].as_str().filter(|path| path.starts_with(file))?;
            let args = ["--to", "-", "--version", &version["id"].to_string()];
            Some(restore(&source.join(path)).args(args).run().success())
        });
        kept.flat_map(|text| words(&text).collect::<Vec<_>>()).collect()
    }
}

/// Returns all words of the files beneath a directory, marks among them.
pub fn marks(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(marks(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            // It may be renamed between the two.
            found.extend(words(&text));
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let is_between = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(is_between).filter(|word| word.contains('_')).map(str::to_owned)
}
