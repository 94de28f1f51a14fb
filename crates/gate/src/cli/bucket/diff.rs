//! `gate bucket diff`

use std::env;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::json;

use super::{JSON_VERSION, Which, moment};
use crate::daemon::body::bucket::{Difference, Differences, Side};
use crate::failure::Failure;
use crate::output;
use crate::query;

/// Show what differs between two versions of a bucket
#[derive(Debug, clap::Args)]
pub struct Diff {
    #[command(flatten)]
    which: Which,
    /// Only what is at this path or in it
    #[arg(default_value = "/")]
    path: PathBuf,
    /// From this version on: the beginning of its id, `~N` for N entries ago, or a time [default: that before the newest]
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,
    /// Up to this version [default: the newest]
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// What differs, and not in which lines
    #[arg(long)]
    stat: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What a line says, and so how it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What differs, and where.
    Headline,
    /// Of which lines the next ones are.
    Place,
    Gone,
    New,
    Plain,
}

impl Diff {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let version = |named: &Option<String>| named.as_deref().map(moment).unwrap_or_default();
        let [from, to] = [&self.from, &self.to].map(version);
        let lines = if self.stat { "" } else { "true" };
        let pairs = [
            ("path", self.path.as_os_str().as_bytes()),
            ("from", from.as_bytes()),
            ("to", to.as_bytes()),
            ("lines", lines.as_bytes()),
        ];
        let asked = query::address(&format!("{target}/diff"), &pairs);
        let Differences { differences, left_out } = rest.ask("GET", &asked)?;
        if self.json {
            let told = json!({
                "version": JSON_VERSION, "differences": differences, "left_out": left_out,
            });
            return output::print_json(&told);
        }
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let page = Page { is_terminal: io::stdout().is_terminal(), is_plain, text: String::new() };
        let page = differences.iter().fold(page, Page::tell);
        output::print(&page.text)?;
        if left_out > 0 {
            output::say_line(format_args!(
                "the lines of {left_out} more files are left out: name a path"
            ));
        }
        Ok(())
    }
}

/// What is written, as `patch -p1` reads it.
struct Page {
    is_terminal: bool,
    is_plain: bool,
    text: String,
}

impl Page {
    fn tell(mut self, difference: &Difference) -> Page {
        for (look, line) in told(difference) {
            match self.is_terminal || look == Look::Headline {
                true => self.line(look, line.strip_suffix('\n').unwrap_or(&line)),
                // What others read is what is in the file.
                false => self.text.push_str(&line),
            }
        }
        self
    }

    /// Writes a line in which nothing steers a terminal.
    fn line(&mut self, look: Look, line: &str) {
        let line = line.split('\t').map(output::printable).collect::<Vec<_>>().join("\t");
        let colour = match look {
            Look::Headline => "1",
            Look::Place => "36",
            Look::Gone => "31",
            Look::New => "32",
            Look::Plain => "",
        };
        self.text += &match self.is_terminal && !self.is_plain && !colour.is_empty() {
            true => format!("\x1b[{colour}m{line}\x1b[m\n"),
            false => format!("{line}\n"),
        };
    }
}

/// Returns the lines that say what differs; those of a file as they are, with their ends.
pub fn told(difference: &Difference) -> Vec<(Look, String)> {
    let mut told = vec![(Look::Headline, headline(difference))];
    let Difference { path, before, after, lines, .. } = difference;
    let Some(lines) = lines.as_deref().filter(|lines| !lines.is_empty()) else { return told };
    let name = |side: &Option<Side>, under: &str| match side {
        Some(_) => format!("{under}{}", path.display()),
        None => "/dev/null".to_owned(),
    };
    told.push((Look::Headline, format!("--- {}", name(before, "a"))));
    told.push((Look::Headline, format!("+++ {}", name(after, "b"))));
    let look = |line: &str| match line.as_bytes().first() {
        Some(b'@') => Look::Place,
        Some(b'-') => Look::Gone,
        Some(b'+') => Look::New,
        _ => Look::Plain,
    };
    told.extend(lines.split_inclusive('\n').map(|line| (look(line), line.to_owned())));
    told
}

/// Says in a line what differs.
fn headline(difference: &Difference) -> String {
    let Difference { path, what, from, attribute, before, after, .. } = difference;
    let path = path.display();
    if let Some(from) = from {
        return format!("{what} {path} (from {})", from.0.display());
    }
    let subject = match attribute {
        Some(name) => format!("{what} {} of {path}", name.0.display()),
        None => format!("{what} {path}"),
    };
    let facts = match (before, after) {
        (Some(before), Some(after)) => match (facts(before), facts(after)) {
            (Some(before), Some(after)) if before == after => Some(after),
            (Some(before), Some(after)) => Some(format!("{before} -> {after}")),
            _ => None,
        },
        (None, Some(_)) if attribute.is_some() => Some("set".to_owned()),
        (Some(_), None) if attribute.is_some() => Some("taken away".to_owned()),
        (Some(side), None) | (None, Some(side)) => facts(side),
        (None, None) => None,
    };
    facts.map_or(subject.clone(), |facts| format!("{subject} ({facts})"))
}

fn facts(Side { kind, size, mode, target }: &Side) -> Option<String> {
    match (target, size, mode) {
        (Some(to), ..) => Some(format!("to {}", to.0.display())),
        (_, Some(size), _) => Some(output::bytes(*size)),
        (_, _, Some(mode)) if kind.is_none() => Some(format!("{mode:04o}")),
        _ => kind.clone(),
    }
}
