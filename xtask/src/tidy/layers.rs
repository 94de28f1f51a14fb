//! Which crate may use which: what the dependency lists alone do not forbid.

use super::Tree;

/// Each crate of ours and those of ours that it may use; xtask and tests may use anything.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("core", &[]),
    ("fuse", &[]),
    ("api", &["core"]),
    ("broker", &["core", "api"]),
    ("view", &["core", "api", "fuse"]),
    ("bucket", &["core"]),
    ("gate", &["core", "fuse", "api", "broker", "view", "bucket"]),
];

/// Checks the manifests under crates/.
pub fn check(tree: &Tree) -> Vec<String> {
    let manifests = tree.iter().filter_map(|(path, text)| {
        let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        Some((path, name, text))
    });
    manifests.flat_map(|(path, name, text)| check_one(path, name, text)).collect()
}

fn check_one(path: &str, name: &str, text: &str) -> Vec<String> {
    let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
        return vec![format!("{path}: `{name}` has no place in the layers")];
    };
    used(text)
        .filter(|used| !allowed.contains(used))
        .map(|used| format!("{path}: `{name}` may not use `{used}`"))
        .collect()
}

/// Ours begin with `gate-` and stand at the head of a line in a section of dependencies.
fn used(manifest: &str) -> impl Iterator<Item = &str> {
    let mut is_dependency = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            is_dependency = line.contains("dependencies");
            return line.split_once("dependencies.gate-").map(|(_, n)| n.trim_end_matches(']'));
        }
        let key = line.split(['.', '=', ' ']).next()?;
        is_dependency.then(|| key.strip_prefix("gate-")).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::tests::tree;

    #[test]
    fn a_crate_uses_only_what_lies_below_it() {
        let manifest = |uses: &str| format!("[package]\nname = \"gate-x\"\n[dependencies]\n{uses}");
        let fine = manifest("gate-core.workspace = true\ngate-fuse = { path = \"../fuse\" }\n");
        assert!(check(&tree(&[("crates/view/Cargo.toml", &fine)])).is_empty());
        let wrong = manifest("gate-broker.workspace = true\n");
        let complaints = check(&tree(&[("crates/view/Cargo.toml", &wrong)]));
        assert_eq!(complaints, ["crates/view/Cargo.toml: `view` may not use `broker`"]);
        let hidden = manifest("\n[dev-dependencies.gate-view]\npath = \"../view\"\n");
        assert_eq!(check(&tree(&[("crates/core/Cargo.toml", &hidden)])).len(), 1);
        assert_eq!(check(&tree(&[("crates/new/Cargo.toml", &fine)])).len(), 1);
    }
}
