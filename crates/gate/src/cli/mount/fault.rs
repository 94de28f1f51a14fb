//! What a fault in the code of a view leads to: its end.

use std::panic;

/// Lets a panic of any thread end the process: without a session, a timer or a watcher a view would
/// hang whoever comes. A dead one fails closed, and all see that it is dead. The one exception is a
/// fault in the answer to one request, which is that request's alone.
pub fn end_whole() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |fault| {
        tell(fault);
        if !gate_fuse::is_answering() {
            std::process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::thread;

    use super::*;

    const VARIABLE: &str = "GATE_TEST_PANICS_IN_A_THREAD";

    /// Runs itself, where a thread that nobody looks after panics.
    #[test]
    fn a_view_does_not_outlive_any_of_its_threads() {
        if std::env::var_os(VARIABLE).is_some() {
            end_whole();
            let _ = thread::spawn(|| panic!("here it ends")).join();
            return;
        }
        let test = std::env::current_exe().unwrap();
        let own = "a_view_does_not_outlive_any_of_its_threads";
        let output = Command::new(test).args([own, "--nocapture"]).env(VARIABLE, "1").output();
        let output = output.unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("here it ends"), "{said}");
    }
}
