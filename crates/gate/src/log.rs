//! The log: what a person who runs Gate may want to know later. Never on standard output.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, as in `debug` or `gate_broker=trace`.
const FILTER: &str = "GATE_LOG";

/// Starts it, on standard error: a process in the background makes that its log file.
pub fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .with_env_var(FILTER)
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would be reported on standard error, with a panic where that cannot be written.
        .log_internal_errors(false)
        .with_ansi(false)
        .init();
}
