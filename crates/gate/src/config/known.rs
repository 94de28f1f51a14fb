//! The settings by name: the variable that sets each, and what holds where nothing does.
//!
//! Flags win over all of this; what they say is nobody's to know beforehand.

use std::ffi::OsString;
use std::path::Path;

use gate_broker::Options;
use gate_view::kept::Limits;
use gate_view::policy::READ_WAIT_DEFAULT;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::reach::{HOST_DEFAULT, state_dir_own};

const MIB: u64 = 1 << 20;
const DAY_S: u64 = 24 * 3600;

/// All settings.
pub const NAMES: [&str; 17] = [
    "state_dir",
    "broker_host",
    "broker_port",
    "token_file",
    "api_port",
    "api_token_file",
    "lease_ms",
    "max_hold_ms",
    "acquire_timeout_ms",
    "audit_max_mib",
    "audit_max_days",
    "release_on_flush",
    "read_wait",
    "guard",
    "guard_keep_max_mib",
    "guard_keep_days",
    POLICY,
];

/// The setting whose values add up.
pub const POLICY: &str = "policy";

/// Names that are less alike are no slips of one another.
const LIKENESS_MIN: f64 = 0.8;

/// Returns the setting that somebody may have meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let nearest = NAMES.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) >= LIKENESS_MIN).then_some(nearest)
}

/// Returns the variable that sets it.
pub fn variable_of(name: &str) -> Option<&'static str> {
    match name {
        "state_dir" => Some("GATE_STATE_DIR"),
        "broker_host" => Some("GATE_BROKER_HOST"),
        "broker_port" => Some("GATE_BROKER_PORT"),
        "token_file" => Some("GATE_TOKEN_FILE"),
        "api_port" => Some("GATE_API_PORT"),
        "api_token_file" => Some("GATE_API_TOKEN_FILE"),
        "lease_ms" => Some("GATE_LEASE_MS"),
        "max_hold_ms" => Some("GATE_MAX_HOLD_MS"),
        "acquire_timeout_ms" => Some("GATE_ACQUIRE_TIMEOUT_MS"),
        "audit_max_mib" => Some("GATE_AUDIT_MAX_MIB"),
        "audit_max_days" => Some("GATE_AUDIT_MAX_DAYS"),
        "release_on_flush" => Some("GATE_RELEASE_ON_FLUSH"),
        _ => None,
    }
}

/// Returns what a variable sets it to: nothing if it is empty, or says no where only yes is heard.
pub fn value_of(variable: &str, text: OsString) -> Result<Option<Value>, Failure> {
    let text = text.display().to_string();
    let is_number = ["_MS", "_PORT", "_MIB", "_DAYS"].iter().any(|end| variable.ends_with(end));
    match variable {
        _ if text.is_empty() => Ok(None),
        "GATE_RELEASE_ON_FLUSH" => {
            let says_no = ["n", "no", "f", "false", "off", "0"];
            Ok((!says_no.contains(&&*text.to_lowercase())).then_some(json!(true)))
        }
        _ if is_number => text.parse::<u64>().map(|number| Some(json!(number))).map_err(|error| {
            let cause = format!("it is `{text}`: {error}");
            let hint = format!("set it to a number, or `unset {variable}`");
            Failure::new(format!("cannot understand {variable}"), cause, hint).exit(Exit::Unable)
        }),
        _ => Ok(Some(json!(text))),
    }
}

/// Returns what it is where nothing sets it.
pub fn default_of(name: &str) -> Value {
    let broker = Options::new(Path::new("/").to_owned());
    let kept = Limits::default();
    let ms = |span: std::time::Duration| json!(span.as_secs() * 1000);
    match name {
        "state_dir" => state_dir_own().map_or(Value::Null, |dir| json!(dir.display().to_string())),
        "broker_host" => json!(HOST_DEFAULT),
        "broker_port" => json!(gate_api::address::PORT_DEFAULT),
        "lease_ms" => ms(broker.lease_session),
        "max_hold_ms" => broker.max_hold.map_or(json!(0), ms),
        "acquire_timeout_ms" => broker.acquire_timeout.map_or(json!(0), ms),
        "audit_max_mib" => json!(broker.log_bytes_max / MIB),
        "audit_max_days" => json!(broker.log_age_max.as_secs() / DAY_S),
        "release_on_flush" => json!(false),
        "read_wait" => json!(format!("{}s", READ_WAIT_DEFAULT.as_secs())),
        "guard" => json!("keep"),
        "guard_keep_max_mib" => json!(kept.bytes_max / MIB),
        "guard_keep_days" => json!(kept.age_s_max / DAY_S),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_another_word() {
        assert_eq!(nearest("leasems"), Some("lease_ms"));
        assert_eq!(nearest("max_hold"), Some("max_hold_ms"));
        assert_eq!(nearest("policies"), Some("policy"));
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn a_variable_is_read_as_the_commands_read_it() {
        let value = |variable: &str, text: &str| value_of(variable, text.into());
        assert_eq!(value("GATE_LEASE_MS", "500").unwrap(), Some(json!(500)));
        assert_eq!(value("GATE_BROKER_HOST", "h").unwrap(), Some(json!("h")));
        assert_eq!(value("GATE_BROKER_HOST", "").unwrap(), None);
        assert_eq!(value("GATE_RELEASE_ON_FLUSH", "Off").unwrap(), None);
        assert_eq!(value("GATE_RELEASE_ON_FLUSH", "1").unwrap(), Some(json!(true)));
        assert!(value("GATE_LEASE_MS", "x").unwrap_err().to_string().contains("GATE_LEASE_MS"));
    }
}
