//! What the kernel tells of a process.

use std::io;
use std::time::Duration;

/// Returns how much memory a process has.
pub fn resident_bytes(pid: u32) -> io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = field(&status, "VmRSS").ok_or_else(|| io::Error::other("no VmRSS"))?;
    Ok(kib as usize * 1024)
}

/// Returns how much it had at most.
pub fn peak_bytes(pid: u32) -> io::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = field(&status, "VmHWM").ok_or_else(|| io::Error::other("no VmHWM"))?;
    Ok(kib as usize * 1024)
}

/// Returns its share of that: what several have in common counts once among them.
pub fn proportional_bytes(pid: u32) -> io::Result<usize> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = field(&rollup, "Pss").ok_or_else(|| io::Error::other("no Pss"))?;
    Ok(kib as usize * 1024)
}

/// Shows an amount of memory.
pub fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

/// What all threads of a process used and how often they were switched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    pub cpu: Duration,
    /// How often one went to sleep.
    pub sleeps: u64,
    /// How often one had to make room.
    pub displaced: u64,
}

impl Account {
    /// Reads the account of the threads that a process has now.
    pub fn of(pid: u32) -> io::Result<Account> {
        let mut sum = Account::default();
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.path();
            let schedule = std::fs::read_to_string(thread.join("schedstat"))?;
            let nanos = schedule.split(' ').next().and_then(|nanos| nanos.parse().ok());
            sum.cpu += Duration::from_nanos(nanos.unwrap_or_default());
            let status = std::fs::read_to_string(thread.join("status"))?;
            sum.sleeps += field(&status, "voluntary_ctxt_switches").unwrap_or_default();
            sum.displaced += field(&status, "nonvoluntary_ctxt_switches").unwrap_or_default();
        }
        Ok(sum)
    }

    /// Returns what was added since an earlier account.
    pub fn since(self, earlier: Account) -> Account {
        Account {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
            displaced: self.displaced.saturating_sub(earlier.displaced),
        }
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status =
            "nonvoluntary_ctxt_switches:\t7\nVmRSS:\t  12 kB\nvoluntary_ctxt_switches:\t5\n";
        assert_eq!(field(status, "VmRSS"), Some(12));
        assert_eq!(field(status, "voluntary_ctxt_switches"), Some(5));
        assert_eq!(field(status, "VmRS"), None);
    }
}
