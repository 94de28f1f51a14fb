//! What tests ask of a journal that the broker itself never does.

use gate_core::id::Ticket;
use gate_core::lock::table::Record;
use rusqlite::config::DbConfig;

use super::checkpoint::Checkpointer;
use super::{Journal, rows};

impl Journal {
    /// Returns what is synced of those who are elsewhere: their longest lease.
    pub fn elsewhere_ms(&self) -> i64 {
        self.elsewhere_ms
    }

    /// Returns what is stored of a claim.
    pub fn remembers(&self, ticket: Ticket) -> Option<Record> {
        let id = i64::try_from(ticket.0).unwrap();
        let mut select =
            self.connection.prepare_cached("SELECT row FROM claim WHERE id = ?1").unwrap();
        let row = select.query_row([id], |row| row.get::<_, Vec<u8>>(0)).ok()?;
        Some(rows::decode_claim(&row).unwrap())
    }

    /// Returns how many claims and sessions are stored.
    pub fn rows(&self) -> i64 {
        let count = "SELECT (SELECT count(*) FROM claim) + (SELECT count(*) FROM session)";
        self.connection.query_row(count, (), |row| row.get(0)).unwrap()
    }

    /// The log counts as too long, and is to be folded.
    pub fn falls_behind(&mut self) {
        self.checkpointer.fall_behind();
    }

    /// Whether nothing can be written.
    pub fn fill_disk(&self, is_full: bool) {
        self.connection.pragma_update(None, "query_only", is_full).unwrap();
    }

    /// From now on to drop it is to crash: what is in the log stays there.
    pub fn forgo_order(&mut self) {
        self.checkpointer = Checkpointer::idle();
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    }
}
