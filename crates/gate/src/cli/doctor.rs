//! `gate doctor`
//!
//! Facts are gathered first ([`facts`]); each check is a function from facts to a [`Finding`]
//! ([`checks`]), and needs no machine to be tested.

mod checks;
pub mod facts;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::interruption::Interruption;
use crate::output::{self, printable};
use crate::reach::BrokerFlags;
use facts::{Facts, view};

/// Check this machine, the broker and the views; say what to type to mend what is wrong
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check these views only [default: all]
    #[arg(value_name = "MOUNTPOINT")]
    mountpoints: Vec<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Ask one view, for another process of this program
    #[arg(long, hide = true, value_name = "MOUNTPOINT")]
    ask: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    checks: Vec<Finding>,
}

/// What one check found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    /// Which of several, if there are several.
    subject: Option<String>,
    level: Level,
    found: String,
    /// What to type, or to do.
    mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warn,
    /// It does not work.
    Fail,
    /// It cannot be checked here.
    Skip,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        if let Some(point) = &self.ask {
            return output::print_json(&view::ask(point)).map(|()| Exit::Success);
        }
        let interruption = Interruption::watch()?;
        let facts = Facts::gather(&self.broker, &self.mountpoints, &interruption)?;
        let report = Report { version: 1, checks: checks::all(&facts) };
        match self.json {
            true => output::print_json(&report)?,
            false => output::print(&report.text())?,
        }
        let fails = report.checks.iter().any(|finding| finding.level == Level::Fail);
        Ok(if fails { Exit::Failed } else { Exit::Success })
    }
}

impl Report {
    fn text(&self) -> String {
        let width = self.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        self.checks.iter().fold(String::new(), |mut text, finding| {
            let Finding { check, subject, level, found, mend } = finding;
            let _ = write!(text, "{:<4}  {check:<width$}  ", level.word());
            if let Some(subject) = subject {
                let _ = write!(text, "{}: ", printable(subject));
            }
            text.push_str(&printable(found));
            if let Some(mend) = mend {
                let _ = write!(text, "; to mend it: {}", printable(mend));
            }
            text.push('\n');
            text
        })
    }
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, subject: None, level: Level::Ok, found: found.into(), mend: None }
    }

    fn skip(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { level: Level::Skip, ..Finding::ok(check, found) }
    }

    fn warn(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Warn, mend: Some(mend.into()), ..Finding::ok(check, found) }
    }

    fn fail(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Fail, ..Finding::warn(check, found, mend) }
    }

    fn about(self, subject: impl Into<String>) -> Finding {
        Finding { subject: Some(subject.into()), ..self }
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
            Level::Skip => "skip",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_whatever_it_names() {
        let checks = vec![
            Finding::ok("kernel", "Linux 6.1"),
            Finding::fail("view", "it\nhangs", "`kill 7`").about("/m/\x1b[2J"),
        ];
        let expected = "ok    kernel  Linux 6.1\n\
            FAIL  view    /m/\\u{1b}[2J: it\\nhangs; to mend it: `kill 7`\n";
        assert_eq!(Report { version: 1, checks }.text(), expected);
    }

    #[test]
    fn programs_are_told_the_same() {
        let text = serde_json::to_string(&Finding::warn("kin", "a", "b")).unwrap();
        let expected = r#"{"check":"kin","subject":null,"level":"warn","found":"a","mend":"b"}"#;
        assert_eq!(text, expected);
    }
}
