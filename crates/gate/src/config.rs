//! `gate.toml`: what holds unless a flag or a variable says otherwise.
//!
//! The system's and the user's file may set everything; the one at a source's root comes with
//! the files, from whoever wrote them, and may set nothing but how they are gated. [`known`] lists the
//! settings, and what each of them is by itself.

pub mod known;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use gate_api::wire::{LEASE_MS_MAX, LEASE_MS_MIN};
use gate_view::policy::{Policies, Rule};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::duration;
use crate::failure::{Exit, Failure};

const NAME: &str = "gate.toml";
const SYSTEM_DIR: &str = "/etc/gate";

/// A file that sets something, and what, as it is written there.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub origin: Origin,
    pub path: PathBuf,
    pub values: toml::Table,
}

/// Where the value of a setting comes from; the later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    System,
    User,
    Source,
    Variable,
}

/// What a file of the system or of the user may set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub state_dir: Option<PathBuf>,
    pub broker_host: Option<String>,
    pub broker_port: Option<u16>,
    pub token_file: Option<PathBuf>,
    #[serde(deserialize_with = "maybe_lease_ms")]
    pub lease_ms: Option<u64>,
    pub max_hold_ms: Option<u64>,
    pub acquire_timeout_ms: Option<u64>,
    #[serde(deserialize_with = "maybe_audit_max_mib")]
    pub audit_max_mib: Option<u32>,
    #[serde(deserialize_with = "maybe_audit_max_days")]
    pub audit_max_days: Option<u32>,
    pub api_port: Option<u16>,
    pub api_token_file: Option<PathBuf>,
    pub release_on_flush: Option<bool>,
    #[serde(deserialize_with = "maybe_duration")]
    pub read_wait: Option<Duration>,
    pub guard: Option<GuardPolicy>,
    pub guard_keep_max_mib: Option<u64>,
    pub guard_keep_days: Option<u64>,
    /// `GLOB=none` or `GLOB=gated`, weakest first.
    #[serde(deserialize_with = "policy")]
    pub policy: Vec<String>,
}

/// What happens when an agent overwrites what it has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GuardPolicy {
    /// What it destroys is kept for `gate restore`
    Keep,
    /// It is told EBUSY
    Refuse,
    /// Nothing
    Allow,
}

/// What a file at a source's root may set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    #[serde(deserialize_with = "maybe_duration")]
    pub read_wait: Option<Duration>,
    /// `GLOB=none` or `GLOB=gated`, weakest first.
    #[serde(deserialize_with = "policy")]
    pub policy: Vec<String>,
}

impl Settings {
    /// Reads the system's file and the user's, which wins; the user's may be out of reach, as it is
    /// for a program that became another user but kept its environment.
    pub fn load() -> Result<Settings, Failure> {
        let system: Settings = read(&Path::new(SYSTEM_DIR).join(NAME))?;
        match user_dir() {
            Some(dir) if is_closed(&dir.join(NAME)) => Ok(system),
            Some(dir) => Ok(system.overlaid(read(&dir.join(NAME))?)),
            None => Ok(system),
        }
    }

    /// Returns where these files are, or would be.
    pub fn paths() -> impl Iterator<Item = PathBuf> {
        places().map(|(_, path)| path)
    }

    fn overlaid(mut self, over: Settings) -> Settings {
        self.policy.extend(over.policy);
        Settings {
            state_dir: over.state_dir.or(self.state_dir),
            broker_host: over.broker_host.or(self.broker_host),
            broker_port: over.broker_port.or(self.broker_port),
            token_file: over.token_file.or(self.token_file),
            lease_ms: over.lease_ms.or(self.lease_ms),
            max_hold_ms: over.max_hold_ms.or(self.max_hold_ms),
            acquire_timeout_ms: over.acquire_timeout_ms.or(self.acquire_timeout_ms),
            audit_max_mib: over.audit_max_mib.or(self.audit_max_mib),
            audit_max_days: over.audit_max_days.or(self.audit_max_days),
            api_port: over.api_port.or(self.api_port),
            api_token_file: over.api_token_file.or(self.api_token_file),
            release_on_flush: over.release_on_flush.or(self.release_on_flush),
            read_wait: over.read_wait.or(self.read_wait),
            guard: over.guard.or(self.guard),
            guard_keep_max_mib: over.guard_keep_max_mib.or(self.guard_keep_max_mib),
            guard_keep_days: over.guard_keep_days.or(self.guard_keep_days),
            policy: self.policy,
        }
    }
}

impl SourceSettings {
    /// Reads the file at a source's root, by a path that leads there; people know that as `source`.
    pub fn load(root: &Path, source: &Path) -> Result<SourceSettings, Failure> {
        read_by(&root.join(NAME), &source.join(NAME))
    }
}

/// Returns what each of the files says that are there, that of a source, too, weakest first.
pub fn written(source: Option<&Path>) -> Result<Vec<Written>, Failure> {
    let mut all = Vec::new();
    for (origin, path) in places() {
        if origin == Origin::User && is_closed(&path) {
            continue;
        }
        let _: Settings = read(&path)?;
        all.extend(table_of(origin, path)?);
    }
    if let Some(root) = source {
        SourceSettings::load(root, root)?;
        all.extend(table_of(Origin::Source, root.join(NAME))?);
    }
    Ok(all)
}

fn places() -> impl Iterator<Item = (Origin, PathBuf)> {
    let system = (Origin::System, PathBuf::from(SYSTEM_DIR));
    let user = user_dir().map(|dir| (Origin::User, dir));
    std::iter::once(system).chain(user).map(|(origin, dir)| (origin, dir.join(NAME)))
}

fn table_of(origin: Origin, path: PathBuf) -> Result<Option<Written>, Failure> {
    let Some(text) = text_of(&path, &path)? else { return Ok(None) };
    let values = toml::from_str(&text).map_err(|error| misunderstood(&path, &text, &error))?;
    Ok(Some(Written { origin, path, values }))
}

fn user_dir() -> Option<PathBuf> {
    Some(user_base()?.join("gate"))
}

/// Returns where programs keep what this user configured.
pub fn user_base() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Failure> {
    read_by(path, path)
}

/// Reads a file by a path that is not its name.
fn read_by<T: DeserializeOwned + Default>(path: &Path, name: &Path) -> Result<T, Failure> {
    let Some(text) = text_of(path, name)? else { return Ok(T::default()) };
    toml::from_str(&text).map_err(|error| misunderstood(name, &text, &error))
}

fn text_of(path: &Path, name: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(unreadable(name, &error)),
    }
}

fn misunderstood(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
    let place = format!("cannot understand {}, line {line}", path.display());
    let unknown = error.message().strip_prefix("unknown field `");
    let failure = match unknown.and_then(|rest| rest.split_once('`')) {
        Some((name, _)) if known::NAMES.contains(&name) => {
            let cause = format!("a source's own file may not set `{name}`");
            Failure::new(place, cause, "set it in /etc/gate/gate.toml or ~/.config/gate/gate.toml")
        }
        Some((name, _)) => {
            let hint = match known::nearest(name) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "`gate config show` lists all settings".to_owned(),
            };
            Failure::new(place, format!("there is no setting `{name}`"), hint)
        }
        None => Failure::new(place, error.message(), "mend that line"),
    };
    failure.exit(Exit::Unable)
}

/// Tells whether this user may not read the file, and warns of it.
fn is_closed(path: &Path) -> bool {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let is_closed = fs::File::open(path).is_err_and(|error| denied(&error));
    if is_closed {
        tracing::warn!(path = %path.display(), "may not be read, and is left out");
    }
    is_closed
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot read {}", path.display());
    Failure::new(what, error, "make it readable, or remove it").exit(Exit::Unable)
}

fn maybe_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let bad = |why| serde::de::Error::custom(format!("read_wait: {why}"));
    duration::parse(&text).map(Some).map_err(bad)
}

fn maybe_audit_max_mib<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    at_least_one("audit_max_mib", from)
}

fn maybe_audit_max_days<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    at_least_one("audit_max_days", from)
}

fn at_least_one<'de, D: Deserializer<'de>>(name: &str, from: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(from)? {
        0 => Err(serde::de::Error::custom(format!("{name}: 0 is not in 1..={}", u32::MAX))),
        number => Ok(Some(number)),
    }
}

fn policy<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let rules = Vec::<String>::deserialize(from)?;
    for text in &rules {
        let compiled = Rule::parse(text).and_then(|rule| Policies::new(vec![rule], None));
        compiled
            .map_err(|bad| serde::de::Error::custom(format!("policy: `{text}`: {}", bad.reason)))?;
    }
    Ok(rules)
}

fn maybe_lease_ms<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(from)? {
        ms @ LEASE_MS_MIN..=LEASE_MS_MAX => Ok(Some(ms)),
        ms => Err(serde::de::Error::custom(format!(
            "lease_ms: {ms} is not in {LEASE_MS_MIN}..={LEASE_MS_MAX}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_wins_and_policies_add_up() {
        let system: Settings =
            toml::from_str("lease_ms = 500\nread_wait = \"2s\"\npolicy = [\"*.a=none\"]").unwrap();
        let user = toml::from_str("lease_ms = 700\npolicy = [\"*.a=gated\"]").unwrap();
        let both = system.overlaid(user);
        assert_eq!((both.lease_ms, both.read_wait), (Some(700), Some(Duration::from_secs(2))));
        assert_eq!(both.policy, ["*.a=none", "*.a=gated"]);
    }

    #[test]
    fn a_lease_that_no_heartbeat_keeps_is_refused_as_one_without_end_is() {
        for ms in ["0", "99", "86400001"] {
            let refused = toml::from_str::<Settings>(&format!("lease_ms = {ms}")).unwrap_err();
            assert_eq!(refused.message(), format!("lease_ms: {ms} is not in 100..=86400000"));
        }
    }

    #[test]
    fn a_value_that_no_flag_may_have_is_refused_with_its_key() {
        for (text, why) in [
            (
                "policy = [\"*.log=none\", \"a=b\"]",
                "policy: `a=b`: after the `=` comes `none` or `gated`",
            ),
            ("policy = [\"a[=none\"]", "policy: `a[=none`: unclosed character class"),
            ("audit_max_mib = 0", "audit_max_mib: 0 is not in 1..="),
            ("audit_max_days = 0", "audit_max_days: 0 is not in 1..="),
            ("read_wait = \"5 pints\"", "read_wait: "),
        ] {
            let message = toml::from_str::<Settings>(text).unwrap_err().message().to_owned();
            assert!(message.starts_with(why), "{text}: {message}");
        }
    }

    #[test]
    fn an_unknown_setting_is_told_with_the_one_that_was_meant() {
        let refusal = |text: &str| {
            let error = toml::from_str::<Settings>(text).unwrap_err();
            misunderstood(Path::new("/f"), text, &error).to_string()
        };
        let text = refusal("guard = \"keep\"\nlease_msec = 1\n");
        let expected = "error: cannot understand /f, line 2\n\
                        cause: there is no setting `lease_msec`\n\
                        hint:  did you mean `lease_ms`?\n";
        assert_eq!(text, expected);
        assert!(refusal("colour = 1").contains("`gate config show` lists"));
        assert!(refusal("lease_ms = \"x\"").contains("hint:  mend that line"));
        let error = toml::from_str::<SourceSettings>("guard = \"keep\"").unwrap_err();
        let text = misunderstood(Path::new("/f"), "guard", &error).to_string();
        assert!(text.contains("a source's own file may not set `guard`"), "{text}");
    }

    /// The list is not made of the fields: it must name each of them, and no other.
    #[test]
    fn every_setting_is_known_by_its_name() {
        let error = toml::from_str::<Settings>("no_such_setting = 1").unwrap_err();
        let mut named: Vec<&str> = error.message().split('`').skip(3).step_by(2).collect();
        let mut known = known::NAMES.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn a_source_sets_how_it_is_gated_and_nothing_else() {
        assert!(toml::from_str::<SourceSettings>("policy = [\"x=none\"]").is_ok());
        assert!(toml::from_str::<SourceSettings>("broker_host = \"evil\"").is_err());
        assert!(toml::from_str::<Settings>("lease_msec = 1").is_err());
    }
}
