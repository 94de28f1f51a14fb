//! Room for connections: in all, for frames, and for each other machine.
//!
//! A [`Place`] goes with its connection, also when that is handed to the deciding thread, and frees
//! its room when it is dropped.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bounds::{TCP_CONNECTIONS_MAX, TCP_CONNECTIONS_PER_ADDRESS_MAX, TCP_SESSIONS_MAX};

/// Bits of an IPv6 address that are one machine's, or one household's.
const NETWORK_BITS: u32 = 64;

pub(super) struct Room {
    all: Arc<Semaphore>,
    frames: Arc<Semaphore>,
    elsewhere: Arc<Elsewhere>,
}

/// How many connections each other machine has.
type Elsewhere = Mutex<FxHashMap<IpAddr, usize>>;

/// A connection's place.
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _of: Option<Counted>,
    frames: Arc<Semaphore>,
}

/// A place among those of one machine.
struct Counted {
    machine: IpAddr,
    elsewhere: Arc<Elsewhere>,
}

/// The place of a connection that speaks frames.
pub(crate) struct FramesPlace {
    _place: Arc<Place>,
    _frames: OwnedSemaphorePermit,
}

/// There is no room for another of the kind.
pub(super) struct NoRoom;

impl Room {
    pub fn new() -> Room {
        Room {
            all: Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX)),
            frames: Arc::new(Semaphore::new(TCP_SESSIONS_MAX)),
            elsewhere: Arc::default(),
        }
    }

    /// Waits until there is room for another connection.
    pub async fn vacancy(&self) -> OwnedSemaphorePermit {
        self.all.clone().acquire_owned().await.expect("it is never closed")
    }

    /// Gives a connection its place, if its machine may have another.
    pub fn place(&self, vacancy: OwnedSemaphorePermit, peer: IpAddr) -> Result<Place, NoRoom> {
        let counted = match machine(peer) {
            Some(machine) => Some(Counted::new(machine, &self.elsewhere).ok_or(NoRoom)?),
            None => None,
        };
        Ok(Place { _all: vacancy, _of: counted, frames: self.frames.clone() })
    }
}

impl Place {
    /// Keeps it for frames, if there may be another session of those who come over TCP.
    pub fn for_frames(self: Arc<Place>) -> Option<FramesPlace> {
        let frames = self.frames.clone().try_acquire_owned().ok()?;
        Some(FramesPlace { _place: self, _frames: frames })
    }
}

impl Counted {
    fn new(machine: IpAddr, elsewhere: &Arc<Elsewhere>) -> Option<Counted> {
        let mut counts = lock(elsewhere);
        let count = counts.entry(machine).or_default();
        if *count >= TCP_CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Counted { machine, elsewhere: elsewhere.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = lock(&self.elsewhere);
        if let Some(count) = counts.get_mut(&self.machine) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.machine);
            }
        }
    }
}

/// Returns what stands for another machine; this one is not counted.
fn machine(peer: IpAddr) -> Option<IpAddr> {
    match peer.to_canonical() {
        here if here.is_loopback() => None,
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
            Some(IpAddr::V6(network.into()))
        }
    }
}

fn lock(elsewhere: &Elsewhere) -> MutexGuard<'_, FxHashMap<IpAddr, usize>> {
    elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(room: &Room, peer: &str) -> Option<Place> {
        let vacancy = room.all.clone().try_acquire_owned().unwrap();
        room.place(vacancy, peer.parse().unwrap()).ok()
    }

    #[test]
    fn one_machine_leaves_room_for_the_others() {
        let room = Room::new();
        let mut own: Vec<Place> = (0..TCP_CONNECTIONS_PER_ADDRESS_MAX)
            .map(|_| place(&room, "2001:db8::1").unwrap())
            .collect();
        assert!(place(&room, "2001:db8::2").is_none(), "the same network");
        assert!(place(&room, "2001:db8:0:1::1").is_some());
        assert!(place(&room, "192.0.2.1").is_some());
        assert!(place(&room, "127.0.0.1").is_some());
        own.pop();
        own.push(place(&room, "2001:db8::2").unwrap());
        drop(own);
        assert!(lock(&room.elsewhere).is_empty());
        assert_eq!(room.all.available_permits(), TCP_CONNECTIONS_MAX);
    }

    #[test]
    fn frames_have_room_of_their_own() {
        let room = Room::new();
        let one = Arc::new(place(&room, "127.0.0.1").unwrap());
        let mut all: Vec<_> = (0..TCP_SESSIONS_MAX).map(|_| one.clone().for_frames()).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(one.clone().for_frames().is_none());
        all.pop();
        assert!(one.for_frames().is_some());
    }
}
