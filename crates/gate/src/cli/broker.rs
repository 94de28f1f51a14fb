//! `gate broker`

pub mod serve;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_api::address::{PORT_DEFAULT, STATE_DIR_SYSTEM};
use gate_api::bearer::TokenFile;
use gate_broker::{Listen, Options, Policy};

use crate::config::Settings;
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::HOST_DEFAULT;
use crate::tokens;

const DAY_SECONDS: u64 = 24 * 3600;

/// Decide who holds and who waits, for this machine or for others
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it keeps its journal and its socket [default: /var/lib/gate]
    #[arg(long, value_name = "DIR", env = "GATE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Host at which it listens for HTTP [default: 127.0.0.1]
    #[arg(long, value_name = "HOST", env = "GATE_BROKER_HOST")]
    host: Option<String>,
    /// Port at which it listens for HTTP; 0: any that is free [default: 8787]
    #[arg(long, value_name = "PORT", env = "GATE_BROKER_PORT")]
    port: Option<u16>,
    /// File with a `SCOPE TOKEN` on each line, mode 0600; lets in who shows one of them from
    /// another machine. The scopes are read, lock and admin
    #[arg(long, value_name = "FILE", env = "GATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Let nobody in without a token, on this machine neither; the socket needs none
    #[arg(long)]
    require_token: bool,
    #[command(flatten)]
    limits: Limits,
}

/// How long things may last, unless a client says otherwise.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Limits {
    /// Keep locks of stateless clients without a heartbeat for so long [default: 3600000]
    #[arg(long, value_name = "MS", env = "GATE_LEASE_MS", value_parser = duration::lease_ms())]
    lease_ms: Option<u64>,
    /// End locks of v1 clients after so long, opens and holds while others wait; 0: never
    /// [default: 3600000]
    #[arg(long, value_name = "MS", env = "GATE_MAX_HOLD_MS")]
    max_hold_ms: Option<u64>,
    /// Longest wait of clients that name none; 0: for ever [default: 0]
    #[arg(long, value_name = "MS", env = "GATE_ACQUIRE_TIMEOUT_MS")]
    acquire_timeout_ms: Option<u64>,
    /// Keep the log of what happened below this size [default: 256]
    #[arg(long, value_name = "MIB", env = "GATE_AUDIT_MAX_MIB", value_parser = clap::value_parser!(u32).range(1..))]
    audit_max_mib: Option<u32>,
    /// Keep what happened in the log for so many days [default: 30]
    #[arg(long, value_name = "DAYS", env = "GATE_AUDIT_MAX_DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    audit_max_days: Option<u32>,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let settings = Settings::load()?;
        let state_dir = self.state_dir.or_else(|| settings.state_dir.clone());
        let host = self.host.or_else(|| settings.broker_host.clone());
        let port = self.port.or(settings.broker_port);
        let state_dir = state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR_SYSTEM));
        let host = host.unwrap_or_else(|| HOST_DEFAULT.to_owned());
        let token_file = self.token_file.or_else(|| settings.token_file.clone());
        let policy = policy(token_file.as_deref(), self.require_token)?;
        let listen = Some(Listen { host, port: port.unwrap_or(PORT_DEFAULT), policy });
        let options = Options { listen, ..self.limits.options(state_dir, &settings) };
        serve::serve(
            options,
            |_| Ok(()),
            |addresses| {
                output::say_line(format_args!("broker ready: {addresses}"));
                Ok(())
            },
        )
    }
}

/// Returns what is asked of those who come by HTTP.
fn policy(token_file: Option<&Path>, require_token: bool) -> Result<Policy, Failure> {
    let refused = |cause: &dyn Display, hint: &dyn Display| {
        Failure::new("cannot start the broker", cause, hint).exit(Exit::Unable)
    };
    let tokens = token_file.map(TokenFile::load).transpose();
    match (tokens.map_err(|error| refused(&error, &tokens::hint(&error)))?, require_token) {
        (None, false) => Ok(Policy::Loopback),
        (None, true) => {
            Err(refused(&"--require-token without a token file", &"give one: --token-file FILE"))
        }
        (Some(tokens), false) => Ok(Policy::TokenFromElsewhere(tokens)),
        (Some(tokens), true) => Ok(Policy::Token(tokens)),
    }
}

impl Limits {
    /// Returns those that are set, by their flags.
    pub fn numbers(self) -> Vec<(&'static str, u64)> {
        let all = [
            ("--lease-ms", self.lease_ms),
            ("--max-hold-ms", self.max_hold_ms),
            ("--acquire-timeout-ms", self.acquire_timeout_ms),
            ("--audit-max-mib", self.audit_max_mib.map(u64::from)),
            ("--audit-max-days", self.audit_max_days.map(u64::from)),
        ];
        all.into_iter().filter_map(|(flag, number)| Some((flag, number?))).collect()
    }

    /// Returns how a broker is to be run, with what the config file says.
    pub fn options(self, state_dir: PathBuf, settings: &Settings) -> Options {
        let defaults = Options::new(state_dir);
        let unless_zero = |ms: u64| (ms > 0).then_some(Duration::from_millis(ms));
        let lease_ms = self.lease_ms.or(settings.lease_ms);
        let max_hold_ms = self.max_hold_ms.or(settings.max_hold_ms);
        let acquire_timeout_ms = self.acquire_timeout_ms.or(settings.acquire_timeout_ms);
        let log_max_mib = self.audit_max_mib.or(settings.audit_max_mib).map(u64::from);
        let log_max_days = self.audit_max_days.or(settings.audit_max_days).map(u64::from);
        Options {
            log_bytes_max: log_max_mib.map_or(defaults.log_bytes_max, |mib| mib << 20),
            log_age_max: log_max_days
                .map_or(defaults.log_age_max, |days| Duration::from_secs(days * DAY_SECONDS)),
            lease_stateless: lease_ms.map_or(defaults.lease_stateless, Duration::from_millis),
            max_hold: max_hold_ms.map_or(defaults.max_hold, unless_zero),
            acquire_timeout: acquire_timeout_ms.map_or(defaults.acquire_timeout, unless_zero),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn a_daemon_that_is_started_is_told_every_limit() {
        let limits = Limits {
            lease_ms: Some(100),
            max_hold_ms: Some(2),
            acquire_timeout_ms: Some(3),
            audit_max_mib: Some(4),
            audit_max_days: Some(5),
        };
        let numbers = limits.numbers();
        let words =
            numbers.iter().flat_map(|(flag, number)| [flag.to_string(), number.to_string()]);
        let told = Words::parse_from(std::iter::once("gate".to_owned()).chain(words)).limits;
        assert_eq!(told.numbers(), numbers);
        assert_eq!(numbers.len(), 5);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_zero_is_no_limit() {
        let settings = Settings {
            lease_ms: Some(1),
            max_hold_ms: Some(2),
            acquire_timeout_ms: Some(3),
            audit_max_days: Some(2),
            ..Settings::default()
        };
        let limits = Limits {
            lease_ms: Some(5),
            max_hold_ms: Some(0),
            acquire_timeout_ms: None,
            audit_max_mib: Some(7),
            audit_max_days: None,
        };
        let options = limits.options("/s".into(), &settings);
        assert_eq!(options.lease_stateless, Duration::from_millis(5));
        assert_eq!(options.max_hold, None);
        assert_eq!(options.acquire_timeout, Some(Duration::from_millis(3)));
        assert_eq!(options.log_bytes_max, 7 << 20);
        assert_eq!(options.log_age_max, Duration::from_secs(2 * DAY_SECONDS));
    }
}
