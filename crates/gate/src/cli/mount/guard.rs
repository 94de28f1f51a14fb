//! What a view does against lost updates, as flags.

use gate_view::guard::Policy;
use gate_view::kept::Limits;

use crate::config::{GuardPolicy, Settings};

const MIB: u64 = 1 << 20;
const DAY_S: u64 = 24 * 60 * 60;

/// What happens when an agent overwrites what another wrote and it has not seen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Guard")]
pub struct Flags {
    /// Keep what agents overwrite unseen, refuse that, or allow it [default: keep]
    #[arg(long, value_enum)]
    guard: Option<GuardPolicy>,
    /// Keep no more than this in all; a sixteenth of it for one file [default: 1024]
    #[arg(long, value_name = "MIB")]
    guard_keep_max_mib: Option<u64>,
    /// Keep it for no longer than this [default: 7]
    #[arg(long, value_name = "DAYS")]
    guard_keep_days: Option<u64>,
}

impl Flags {
    /// Returns what they, or else the config files, say.
    pub fn policy(&self, settings: &Settings) -> Policy {
        self.guard.or(settings.guard).map_or_else(Policy::default, |policy| match policy {
            GuardPolicy::Keep => Policy::Keep,
            GuardPolicy::Refuse => Policy::Refuse,
            GuardPolicy::Allow => Policy::Allow,
        })
    }

    /// Returns the bounds of what is kept.
    pub fn limits(&self, settings: &Settings) -> Limits {
        let defaults = Limits::default();
        let max_mib = self.guard_keep_max_mib.or(settings.guard_keep_max_mib);
        let days = self.guard_keep_days.or(settings.guard_keep_days);
        let bytes_max = max_mib.map_or(defaults.bytes_max, |mib| mib.saturating_mul(MIB));
        let share = defaults.bytes_max / defaults.file_bytes_max;
        Limits {
            bytes_max,
            file_bytes_max: bytes_max / share,
            age_s_max: days.map_or(defaults.age_s_max, |days| days.saturating_mul(DAY_S)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_a_file_over_the_default() {
        let none = Flags { guard: None, guard_keep_max_mib: None, guard_keep_days: None };
        assert_eq!(none.policy(&Settings::default()), Policy::Keep);
        assert_eq!(none.limits(&Settings::default()), Limits::default());
        let settings: Settings =
            toml::from_str("guard = \"refuse\"\nguard_keep_max_mib = 32\nguard_keep_days = 1")
                .unwrap();
        assert_eq!(none.policy(&settings), Policy::Refuse);
        let limits = none.limits(&settings);
        assert_eq!((limits.bytes_max, limits.file_bytes_max), (32 * MIB, 2 * MIB));
        assert_eq!(limits.age_s_max, DAY_S);
        let flags = Flags { guard: Some(GuardPolicy::Allow), ..none };
        assert_eq!(flags.policy(&settings), Policy::Allow);
    }
}
