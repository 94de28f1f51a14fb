//! Threads that say something over one socket, in every order that chance finds.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use shuttle::sync::Mutex;
use shuttle::thread;

use super::Writer;
use crate::frame::Decoder;
use crate::link::Outgoing as _;
use crate::staged::in_many_orders;
use crate::wire::ClientMessage;

const THREADS: u64 = 3;
const ROUNDS: u64 = 2;

/// Who finds another sending leaves its words to that one, who has looked for more by then, or not.
#[test]
fn words_left_to_who_sends_go_out_in_order_and_at_once() {
    in_many_orders(|| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let saying = Arc::new(Mutex::new((Writer::new(Arc::new(ours.into())), 0)));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let saying = saying.clone();
                thread::spawn(move || (0..ROUNDS).for_each(|_| say(&saying)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut decoder = Decoder::default();
        let mut bytes = [0; 1024];
        let length = theirs.read(&mut bytes).unwrap();
        decoder.push(&bytes[..length]);
        decoder.preamble().unwrap().unwrap();
        for word in 1..=THREADS * ROUNDS {
            let said = decoder.message().unwrap();
            assert!(
                matches!(said, Some(ClientMessage::Active { owner }) if owner == word),
                "{said:?}"
            );
        }
    });
}

fn say(saying: &Mutex<(Writer, u64)>) {
    let outbox = {
        let (writer, owner) = &mut *saying.lock().unwrap();
        *owner += 1;
        writer.send(&ClientMessage::Active { owner: *owner });
        writer.outbox().unwrap()
    };
    outbox.flush();
}
