//! What a fault in the code of a view or a broker leads to: its end.

use std::panic;

/// Lets a panic of any thread end the process: without a session, a timer or a watcher a view would
/// hang whoever comes, and a broker without its prober or its log would go on lame. A dead view fails
/// closed, and all see that it is dead; clients of a dead broker come back to the next. The
/// exceptions are a fault in a view's answer to one request, which is that request's alone, and one over the
/// index of a bucket, which is made again.
pub fn end_whole() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |fault| {
        tell(fault);
        if !gate_fuse::is_answering() && !gate_bucket::index::is_guarded() {
            std::process::abort();
        }
    }));
}

#[cfg(test)]
pub mod tests {
    use std::ffi::OsStr;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::thread;

    use super::*;

    const VARIABLE: &str = "GATE_TEST_PANICS_IN_A_THREAD";

    /// A thread that nobody looks after panics.
    pub fn panic_in_a_thread() {
        let _ = thread::spawn(|| panic!("here it ends")).join();
    }

    /// Runs the test of that path once more, with the variable set: such a panic must end it.
    pub fn must_end_itself(test: &str, variable: &str, value: impl AsRef<OsStr>) {
        let program = std::env::current_exe().unwrap();
        let itself = [test, "--exact", "--nocapture"];
        let output = Command::new(program).args(itself).env(variable, value).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("here it ends"), "{said}");
    }

    #[test]
    fn a_server_does_not_outlive_any_of_its_threads() {
        if std::env::var_os(VARIABLE).is_some() {
            end_whole();
            return panic_in_a_thread();
        }
        let own = "fault::tests::a_server_does_not_outlive_any_of_its_threads";
        must_end_itself(own, VARIABLE, "1");
    }
}
