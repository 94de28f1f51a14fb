//! Room for connections: in all, for frames, and for each machine.
//!
//! A [`Place`] goes with its connection, also when that is handed to the deciding thread, and frees
//! its room when it is dropped.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bounds::{self, TCP_SESSIONS_MAX, TcpConnections};

/// Bits of an IPv6 address that are one machine's, or one household's.
const NETWORK_BITS: u32 = 64;

pub(super) struct Room {
    most: TcpConnections,
    all: Arc<Semaphore>,
    frames: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Machine {
    /// Here.
    This,
    /// At this address, or in this network.
    Other(IpAddr),
}

/// How many connections each machine has.
type Counts = Mutex<FxHashMap<Machine, usize>>;

/// A connection's place.
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _of: Counted,
    frames: Arc<Semaphore>,
}

/// A place among those of one machine.
struct Counted {
    machine: Machine,
    counts: Arc<Counts>,
}

/// The place of a connection that speaks frames.
pub(crate) struct FramesPlace {
    _place: Arc<Place>,
    _frames: OwnedSemaphorePermit,
}

/// There is no room for another of the kind: the bound's name.
pub(super) struct NoRoom(pub &'static str);

impl Room {
    pub fn new(most: TcpConnections) -> Room {
        Room {
            most,
            all: Arc::new(Semaphore::new(most.all)),
            frames: Arc::new(Semaphore::new(TCP_SESSIONS_MAX)),
            counts: Arc::default(),
        }
    }

    /// Waits until there is room for another connection.
    pub async fn vacancy(&self) -> OwnedSemaphorePermit {
        self.all.clone().acquire_owned().await.expect("it is never closed")
    }

    /// Gives a connection its place, if its machine may have another.
    pub fn place(&self, vacancy: OwnedSemaphorePermit, peer: IpAddr) -> Result<Place, NoRoom> {
        let machine = Machine::of(peer);
        let (limit, most) = match machine {
            Machine::This => (bounds::TCP_FROM_HERE, self.most.from_here),
            Machine::Other(_) => (bounds::TCP_PER_ADDRESS, self.most.per_address),
        };
        let counted = Counted::new(machine, most, &self.counts).ok_or(NoRoom(limit))?;
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
    fn new(machine: Machine, most: usize, counts: &Arc<Counts>) -> Option<Counted> {
        let mut counted = lock(counts);
        let count = counted.entry(machine).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { machine, counts: counts.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.machine) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.machine);
            }
        }
    }
}

impl Machine {
    fn of(peer: IpAddr) -> Machine {
        match peer.to_canonical() {
            here if here.is_loopback() => Machine::This,
            IpAddr::V4(address) => Machine::Other(address.into()),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
                Machine::Other(IpAddr::V6(network.into()))
            }
        }
    }
}

fn lock(counts: &Counts) -> MutexGuard<'_, FxHashMap<Machine, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(room: &Room, peer: &str) -> Option<Place> {
        let vacancy = room.all.clone().try_acquire_owned().unwrap();
        room.place(vacancy, peer.parse().unwrap()).ok()
    }

    fn room() -> Room {
        Room::new(TcpConnections { all: 12, from_here: 6, per_address: 3 })
    }

    #[test]
    fn one_machine_leaves_room_for_the_others() {
        let room = room();
        let mut own: Vec<Place> = (0..3).map(|_| place(&room, "2001:db8::1").unwrap()).collect();
        assert!(place(&room, "2001:db8::2").is_none(), "the same network");
        assert!(place(&room, "2001:db8:0:1::1").is_some());
        assert!(place(&room, "192.0.2.1").is_some());
        assert!(place(&room, "127.0.0.1").is_some());
        own.pop();
        own.push(place(&room, "2001:db8::2").unwrap());
        drop(own);
        assert!(lock(&room.counts).is_empty());
        assert_eq!(room.all.available_permits(), 12);
    }

    #[test]
    fn this_machine_leaves_room_for_the_others() {
        let room = room();
        let here = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"];
        let own: Vec<_> = here.iter().cycle().take(6).map(|peer| place(&room, peer)).collect();
        assert!(own.iter().all(Option::is_some));
        assert!(here.iter().all(|peer| place(&room, peer).is_none()));
        assert!(place(&room, "192.0.2.1").is_some());
    }

    #[test]
    fn frames_have_room_of_their_own() {
        let room = room();
        let one = Arc::new(place(&room, "127.0.0.1").unwrap());
        let mut all: Vec<_> = (0..TCP_SESSIONS_MAX).map(|_| one.clone().for_frames()).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(one.clone().for_frames().is_none());
        all.pop();
        assert!(one.for_frames().is_some());
    }

    #[test]
    fn connections_leave_half_of_the_files_that_a_broker_may_open() {
        let most = |files| TcpConnections::with_files(files).all;
        assert_eq!([most(None), most(Some(1 << 20)), most(Some(u64::MAX))], [16_384; 3]);
        assert_eq!([most(Some(1_024)), most(Some(100))], [512, 50]);
    }
}
