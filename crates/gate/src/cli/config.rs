//! `gate config`

use std::path::{Path, PathBuf};

use gate_view::policy::{Gating, Rule};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::known::{NAMES, POLICY, default_of, value_of, variable_of};
use crate::config::{self, Origin, Written};
use crate::failure::{Exit, Failure};
use crate::output::{self, Table};

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// Tell what is configured
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show each setting, its value, and where that comes from; flags win over all of it
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A source whose own gate.toml is to be heard, too
    #[arg(value_name = "SOURCE")]
    source: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// A value, and who says so.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Said {
    value: Value,
    origin: Origin,
    /// The file or the variable.
    from: Option<String>,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let Action::Show(show) = self.action;
        show.run().map(|()| Exit::Success)
    }
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let files = config::written(self.source.as_deref())?;
        let mut settings = Vec::new();
        for name in NAMES.into_iter().filter(|name| *name != POLICY) {
            let variable = match variable_of(name) {
                Some(variable) => said_by(variable)?,
                None => None,
            };
            settings.push((name, strongest_first(name, &files, variable)));
        }
        let rules = rules(&files);
        match self.json {
            true => output::print_json(&json(&settings, &rules)),
            false => output::print(&text(&settings, &rules)),
        }
    }
}

fn said_by(variable: &str) -> Result<Option<Said>, Failure> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    let value = value_of(variable, text)?;
    let from = Some(variable.to_owned());
    Ok(value.map(|value| Said { value, origin: Origin::Variable, from }))
}

/// Returns all that is said of a setting: the first one holds.
fn strongest_first(name: &str, files: &[Written], variable: Option<Said>) -> Vec<Said> {
    let default = Said { value: default_of(name), origin: Origin::Default, from: None };
    let by_file = files.iter().filter_map(|file| {
        let value = json!(file.values.get(name)?);
        Some(Said { value, origin: file.origin, from: Some(shown(&file.path)) })
    });
    let mut said: Vec<Said> = std::iter::once(default).chain(by_file).chain(variable).collect();
    said.reverse();
    said
}

/// Returns the rules of which names are gated: the last one that matches holds.
fn rules(files: &[Written]) -> Vec<Said> {
    let shipped = Rule::shipped().into_iter().map(|Rule { glob, gating }| {
        let gating = match gating {
            Gating::Gated => "gated",
            Gating::None => "none",
        };
        Said { value: json!(format!("{glob}={gating}")), origin: Origin::Default, from: None }
    });
    let by_file = files.iter().flat_map(|file| {
        let rules = file.values.get(POLICY).and_then(toml::Value::as_array);
        rules.into_iter().flatten().map(|rule| Said {
            value: json!(rule),
            origin: file.origin,
            from: Some(shown(&file.path)),
        })
    });
    shipped.chain(by_file).collect()
}

fn json(settings: &[(&str, Vec<Said>)], rules: &[Said]) -> Value {
    let setting = |(name, said): &(&str, Vec<Said>)| {
        let (holds, over) = said.split_first().expect("there is a default");
        let Said { value, origin, from } = holds;
        json!({"name": name, "value": value, "origin": origin, "from": from, "over": over})
    };
    json!({
        "version": JSON_VERSION,
        "settings": settings.iter().map(setting).collect::<Vec<_>>(),
        "policy": rules,
    })
}

fn text(settings: &[(&str, Vec<Said>)], rules: &[Said]) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for (name, said) in settings {
        let value = plain(&said[0].value);
        let from: Vec<String> = said.iter().map(origin).collect();
        // That there is a default behind it goes without saying.
        let from = from[..from.len().max(2) - 1].join(", over ");
        table.row([(*name).to_owned(), value, from]);
    }
    for rule in rules {
        table.row([POLICY.to_owned(), plain(&rule.value), origin(rule)]);
    }
    table.text()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn origin(said: &Said) -> String {
    said.from.clone().unwrap_or_else(|| "default".to_owned())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(origin: Origin, path: &str, text: &str) -> Written {
        Written { origin, path: path.into(), values: toml::from_str(text).unwrap() }
    }

    #[test]
    fn the_strongest_is_first_and_the_others_are_told() {
        let files = [
            file(Origin::System, "/s", "lease_ms = 200\npolicy = [\"*.a=none\"]"),
            file(Origin::User, "/u", "lease_ms = 300\npolicy = [\"*.a=gated\"]"),
        ];
        let variable = Said {
            value: json!(400),
            origin: Origin::Variable,
            from: Some("GATE_LEASE_MS".to_owned()),
        };
        let said = strongest_first("lease_ms", &files, Some(variable));
        let values: Vec<&Value> = said.iter().map(|said| &said.value).collect();
        assert_eq!(values, [&json!(400), &json!(300), &json!(200), &json!(10_000)]);
        assert!(said.is_sorted_by(|a, b| a.origin > b.origin));
        let shown = text(&[("lease_ms", said)], &rules(&files));
        assert!(shown.contains("  GATE_LEASE_MS, over /u, over /s\n"), "{shown}");
        let ours: Vec<&str> = shown.lines().rev().take(2).collect();
        assert!(ours[0].contains("*.a=gated") && ours[0].ends_with("/u"), "{shown}");
        assert!(ours[1].contains("*.a=none") && ours[1].ends_with("/s"), "{shown}");
    }
}
