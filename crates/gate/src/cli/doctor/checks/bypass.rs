//! Of the ways past the views of a source.

use crate::bypass::Bypasses;
use crate::cli::doctor::Finding;

const CHECK: &str = "bypass";

pub fn all(bypasses: &Bypasses) -> Vec<Finding> {
    let Bypasses { source, ways } = bypasses;
    let finding = |way: &crate::bypass::Bypass| {
        let finding = match way.closed_by(source) {
            Some(mend) => Finding::warn(CHECK, way.text(), mend),
            None => Finding::ok(CHECK, way.text()),
        };
        finding.about(source.display().to_string())
    };
    ways.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bypass::{Access, Bypass, Namespace};
    use crate::cli::doctor::Level;
    use crate::processes::{Use, User};

    #[test]
    fn each_way_is_told_with_what_closes_it_and_what_nothing_closes_is_no_fault() {
        let other = |path: &str, shows: &str, mount: &str| Bypass::OtherMount {
            path: path.into(),
            shows: shows.into(),
            mount: mount.into(),
            open_to: Access::Group(7),
        };
        let user = |pid, command: &str, has| User {
            pid,
            command: command.into(),
            has,
            path: format!("/d/s/{pid}").into(),
        };
        let namespace =
            Namespace { namespace: 9, pid: 8, command: "make".into(), path: "/d/s".into() };
        let ways = vec![
            Bypass::BarePath { open_to: Access::Everybody },
            other("/bind", "/d/s", "/bind"),
            other("/bind/s", "/d/s", "/bind"),
            other("/e/s", "/d/s", "/"),
            other("/d/x", "/d/s/x", "/d"),
            Bypass::BareUse {
                users: vec![user(5, "vim", Use::OpenFile), user(6, "sh", Use::Mapping)],
            },
            Bypass::OtherNamespace { namespaces: vec![namespace] },
            Bypass::Privileged { users: vec![0, 7] },
        ];
        let findings = all(&Bypasses { source: "/d/s".into(), ways });
        let said: Vec<_> =
            findings.iter().map(|f| (f.level, f.found.as_str(), f.mend.as_deref())).collect();
        let expected = [
            (
                Level::Warn,
                "its own path is open to everybody",
                Some(
                    "`gate mount /d/s` puts a view over it; or keep it in a directory that is open \
                     to root alone",
                ),
            ),
            (Level::Warn, "/d/s is mounted bare at /bind, open to group 7", Some("`umount /bind`")),
            (
                Level::Warn,
                "/d/s is mounted bare at /bind/s, open to group 7",
                Some("`umount /bind`"),
            ),
            (
                Level::Warn,
                "/d/s is mounted bare at /e/s, open to group 7",
                Some(
                    "`gate mount /e/s` puts a view over it; or keep it in a directory that is open \
                     to root alone",
                ),
            ),
            (
                Level::Warn,
                "/d/s/x is mounted bare at /d/x, open to group 7",
                Some("keep it in a directory that is open to root alone"),
            ),
            (
                Level::Warn,
                "in use past the view: vim (process 5: open file /d/s/5), \
                 sh (process 6: mapped file /d/s/6)",
                Some("let them end, or leave the directory and close their files"),
            ),
            (
                Level::Warn,
                "bare among other mounts, at /d/s of make (process 8)",
                Some("let them end, and start them again where they see the view"),
            ),
            (Level::Ok, "root and user 7 could unmount the view, or look into its server", None),
        ];
        assert_eq!(said, expected);
    }
}
