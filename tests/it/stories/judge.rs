//! Whether anything that was done is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::play::{Story, all};

impl Story {
    /// Asserts that each edit that was done is found: in the tree, or among what the guard has kept.
    /// That it was committed does not make up for it.
    pub fn assert_nothing_is_lost(&self) {
        let source = self.world.source();
        let tree = self.world.script(&source, "cat $(find src -type f)").run().success();
        let in_tree: BTreeSet<String> = words(&tree).collect();
        let mut in_store = BTreeMap::new();
        let mut kept = 0;
        let mut lost = Vec::new();
        let edits = self.edits();
        for (mark, file) in &edits {
            if in_tree.contains(mark) {
                continue;
            }
            let known = in_store.entry(file).or_insert_with(|| self.kept_of(file));
            match known.contains(mark) {
                true => kept += 1,
                false => lost.push(self.told_of(mark, file)),
            }
        }
        println!("edits: {}, of them kept: {kept}", edits.len());
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

    /// Asserts that everything that was tried was done, if not at once, and each deed by somebody.
    pub fn assert_all_was_done(&self, said: &BTreeMap<&'static str, String>) {
        let mut undone = BTreeSet::new();
        let mut done = BTreeSet::new();
        for name in all() {
            let record = self.record_of(name);
            let of = |what: &str| -> Vec<&str> {
                record.lines().filter_map(|line| line.strip_prefix(what)).collect()
            };
            let [wrong, did, put_off] = ["failed ", "done ", "put off "].map(of);
            println!("{name}: done {}, put off {}", did.len(), put_off.len());
            assert!(wrong.is_empty(), "{name}: {wrong:?}\n{}", said[name]);
            assert!(did.len() > 2 * put_off.len(), "{name}: {record}");
            undone.extend((self.deeds)(name));
            done.extend(did.iter().filter_map(|line| Some(line.split(' ').next()?.to_owned())));
        }
        undone.retain(|deed| !done.contains(*deed));
        assert!(undone.is_empty(), "nobody did: {undone:?}");
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
