//! What a row of the journal holds: postcard of mirrors of what the broker knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gate_api::mirror::{
    LabelDef, PatienceDef, ProcessDef, RevocationDef, SessionIdDef, SpaceIdDef, TicketDef,
    TokenDef, WantDef, maybe_caller, path,
};
use gate_api::wire::Source;
use gate_core::id::{OwnerId, SessionId, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Caller, Claim, Label, Party, Patience, Process, Terms};
use gate_core::lock::event::{Passed, Revocation};
use gate_core::lock::table::Record;
use gate_core::lock::want::Want;
use gate_core::path::ViewPath;
use gate_core::time::Time;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::sessions::Client;
use crate::spaces::{Seat, Space};

/// Of a claim of which nobody knows since when it is held.
pub(super) const NEVER: Time = Time(u64::MAX);

#[derive(Serialize, Deserialize)]
enum ClaimRow {
    Waiting(ClaimBody),
    /// As version 3 wrote them, which did not say since when.
    Held3(HeldRow),
    Revoked3(HeldRow, #[serde(with = "RevocationDef")] Revocation),
    /// Since when, by [`clock::for_successors`].
    Held(HeldRow, u64),
    Revoked(HeldRow, u64, #[serde(with = "RevocationDef")] Revocation),
}

#[derive(Serialize, Deserialize)]
struct HeldRow {
    claim: ClaimBody,
    #[serde(with = "TokenDef")]
    token: Token,
    count: u32,
    #[serde(with = "PassedDef")]
    passed: Passed,
    kin: Vec<KinRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Passed")]
// The order is that of what has been written.
enum PassedDef {
    Nobody,
    ByKin,
    ByOwn,
}

#[derive(Serialize, Deserialize)]
struct KinRow {
    #[serde(with = "TicketDef")]
    holder: Ticket,
    party: PartyRow,
}

#[derive(Serialize, Deserialize)]
struct ClaimBody {
    owner: OwnerRow,
    party: PartyRow,
    #[serde(with = "maybe_caller")]
    caller: Option<Caller>,
    #[serde(with = "PatienceDef")]
    patience: Patience,
    read_wait: Option<Duration>,
    lease: Option<Duration>,
    max_hold: Option<Duration>,
    #[serde(with = "LabelDef")]
    label: Label,
    #[serde(with = "WantDef")]
    want: Want,
}

#[derive(Serialize, Deserialize)]
struct OwnerRow {
    #[serde(with = "SessionIdDef")]
    session: SessionId,
    number: u64,
}

#[derive(Serialize, Deserialize)]
enum PartyRow {
    Process(#[serde(with = "ProcessDef")] Process),
    Named(String),
    Session(#[serde(with = "SessionIdDef")] SessionId),
    Owner(OwnerRow),
}

#[derive(Serialize, Deserialize)]
struct SessionRow {
    key: u128,
    name: String,
    #[serde(with = "ProcessDef")]
    process: Process,
    machine: u64,
    lease: Duration,
    max_hold: Option<Duration>,
    seats: Vec<SeatRow>,
}

#[derive(Serialize, Deserialize)]
struct SeatRow {
    #[serde(with = "SpaceIdDef")]
    spoken: SpaceId,
    #[serde(with = "SpaceIdDef")]
    space: SpaceId,
    #[serde(with = "path")]
    prefix: ViewPath,
}

#[derive(Serialize, Deserialize)]
struct SpaceRow {
    name: String,
    source: Option<Source>,
}

pub(super) fn encode_claim(record: &Record) -> Vec<u8> {
    encode(&match record {
        Record::Waiting(claim) => ClaimRow::Waiting(ClaimBody::of(claim)),
        Record::Held { claim, token, count, passed, kin, since, revoked } => {
            let kin = kin.iter();
            let kin = kin.map(|(of, party)| KinRow { holder: *of, party: PartyRow::of(party) });
            let held = HeldRow {
                claim: ClaimBody::of(claim),
                token: *token,
                count: *count,
                passed: *passed,
                kin: kin.collect(),
            };
            let since = clock::for_successors(*since);
            match revoked {
                None => ClaimRow::Held(held, since),
                Some(why) => ClaimRow::Revoked(held, since, *why),
            }
        }
    })
}

pub(super) fn decode_claim(bytes: &[u8]) -> Option<Record> {
    Some(match postcard::from_bytes(bytes).ok()? {
        ClaimRow::Waiting(body) => Record::Waiting(body.into_claim()),
        ClaimRow::Held3(held) => held.into_record(NEVER, None),
        ClaimRow::Revoked3(held, why) => held.into_record(NEVER, Some(why)),
        ClaimRow::Held(held, since) => held.into_record(clock::of_predecessor(since), None),
        ClaimRow::Revoked(held, since, why) => {
            held.into_record(clock::of_predecessor(since), Some(why))
        }
    })
}

pub(super) fn encode_session(client: &Client) -> Vec<u8> {
    let seats = client.seats.iter().map(|(spoken, seat)| SeatRow {
        spoken: *spoken,
        space: seat.space,
        prefix: seat.prefix.clone(),
    });
    encode(&SessionRow {
        key: client.key,
        name: client.name.clone(),
        process: client.process,
        machine: client.machine,
        lease: client.lease,
        max_hold: client.max_hold,
        seats: seats.collect(),
    })
}

pub(super) fn decode_session(bytes: &[u8]) -> Option<Client> {
    let row: SessionRow = postcard::from_bytes(bytes).ok()?;
    let seats = row.seats.into_iter();
    Some(Client {
        key: row.key,
        name: row.name,
        process: row.process,
        machine: row.machine,
        lease: row.lease,
        max_hold: row.max_hold,
        private: None,
        over_tcp: false,
        seats: seats
            .map(|seat| (seat.spoken, Seat { space: seat.space, prefix: seat.prefix }))
            .collect(),
        refused: None,
        connection: None,
    })
}

pub(super) fn encode_space(space: &Space) -> Vec<u8> {
    encode(&SpaceRow { name: space.name.clone(), source: space.source.clone() })
}

pub(super) fn decode_space(bytes: &[u8]) -> Option<Space> {
    let row: SpaceRow = postcard::from_bytes(bytes).ok()?;
    Some(Space::new(row.name, row.source))
}

fn encode(row: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(row).expect("rows are made of plain data")
}

impl HeldRow {
    fn into_record(self, since: Time, revoked: Option<Revocation>) -> Record {
        let HeldRow { claim, token, count, passed, kin } = self;
        let kin: BTreeMap<_, _> =
            kin.into_iter().map(|row| (row.holder, row.party.into_party())).collect();
        Record::Held { claim: claim.into_claim(), token, count, passed, kin, since, revoked }
    }
}

impl ClaimBody {
    fn of(claim: &Claim) -> ClaimBody {
        ClaimBody {
            owner: OwnerRow::of(claim.owner),
            party: PartyRow::of(&claim.party),
            caller: claim.caller,
            patience: claim.patience,
            read_wait: claim.read_wait,
            lease: claim.lease,
            max_hold: claim.max_hold,
            label: claim.label.clone(),
            want: claim.want().clone(),
        }
    }

    fn into_claim(self) -> Arc<Claim> {
        let terms = Terms {
            owner: self.owner.into_owner(),
            party: self.party.into_party(),
            caller: self.caller,
            patience: self.patience,
            read_wait: self.read_wait,
            lease: self.lease,
            max_hold: self.max_hold,
            label: self.label,
        };
        Arc::new(Claim::new(terms, self.want))
    }
}

impl OwnerRow {
    fn of(owner: OwnerId) -> OwnerRow {
        OwnerRow { session: owner.session, number: owner.number }
    }

    fn into_owner(self) -> OwnerId {
        OwnerId { session: self.session, number: self.number }
    }
}

impl PartyRow {
    fn of(party: &Party) -> PartyRow {
        match party {
            Party::Process(process) => PartyRow::Process(*process),
            Party::Named(name) => PartyRow::Named(name.to_string()),
            Party::Session(session) => PartyRow::Session(*session),
            Party::Owner(owner) => PartyRow::Owner(OwnerRow::of(*owner)),
        }
    }

    fn into_party(self) -> Party {
        match self {
            PartyRow::Process(process) => Party::Process(process),
            PartyRow::Named(name) => Party::Named(name.into()),
            PartyRow::Session(session) => Party::Session(session),
            PartyRow::Owner(owner) => Party::Owner(owner.into_owner()),
        }
    }
}
