//! Work that may hang, and must not hang a command without a word.

use std::sync::mpsc::channel;
use std::time::Duration;

/// Does something on a thread of its own; `None` if it takes longer, and then goes on without it.
pub fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, heard) = channel();
    // Who no longer listens has given up.
    std::thread::spawn(move || drop(tell.send(work())));
    heard.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_given_up_on() {
        let (free, hangs) = channel::<()>();
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        assert_eq!(within(Duration::from_millis(1), move || hangs.recv()), None);
        drop(free);
    }
}
