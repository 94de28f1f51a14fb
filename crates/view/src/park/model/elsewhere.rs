//! Other sessions, which want the same names: a hold, a reader, a writer or a rename of another view.
//!
//! How those wait in their own views is the same over again; here they ask, and act when they are let in.

use super::broker::Whose;
use super::wish::Job;
use super::{Bounds, Step, World};

/// How far another session is with its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Idle,
    /// It asked where that stood.
    Asked([Option<u8>; 2]),
    Done,
}

impl World {
    pub fn begin_elsewhere(&mut self, bounds: &Bounds) {
        for (k, elsewhere) in bounds.scene.elsewhere.iter().enumerate() {
            self.elsewhere.push(Stage::Idle);
            if elsewhere.is_first {
                self.ask_elsewhere(k, elsewhere.job);
            }
        }
    }

    pub fn steps_elsewhere(&self, steps: &mut Vec<Step>) {
        if self.broker.is_away() {
            return;
        }
        for (k, stage) in self.elsewhere.iter().enumerate() {
            match stage {
                Stage::Idle => steps.push(Step::Elsewhere(k)),
                Stage::Asked(_) if self.broker.has(Whose::Other(k)) => {
                    steps.push(Step::Elsewhere(k));
                }
                Stage::Asked(_) | Stage::Done => {}
            }
        }
    }

    /// Whether what a name stands for may change at any moment.
    pub fn names_change_elsewhere(&self, bounds: &Bounds) -> bool {
        let mut all = self.elsewhere.iter().zip(bounds.scene.elsewhere);
        all.any(|(stage, elsewhere)| *stage != Stage::Done && elsewhere.job.changes_names())
    }

    pub fn go_on_elsewhere(&mut self, k: usize, bounds: &Bounds) {
        let job = bounds.scene.elsewhere[k].job;
        match self.elsewhere[k] {
            Stage::Idle if job.fails(&self.names) => self.elsewhere[k] = Stage::Done,
            Stage::Idle => self.ask_elsewhere(k, job),
            Stage::Asked(stood) if job.changes_names() && stood != job.stands(&self.names) => {
                self.broker.release_elsewhere(k, None);
                self.elsewhere[k] = Stage::Idle;
            }
            Stage::Asked(_) => {
                if job.changes_names() {
                    self.look_for_others(Whose::Other(k), job.stands(&self.names), job, true);
                }
                let change = job.change(&mut self.names);
                self.broker.release_elsewhere(k, change.as_ref());
                self.elsewhere[k] = Stage::Done;
            }
            Stage::Done => unreachable!("it was not offered"),
        }
    }

    fn ask_elsewhere(&mut self, k: usize, job: Job) {
        let stands = job.stands(&self.names);
        self.broker.ask_elsewhere(k, job.wish(stands));
        self.elsewhere[k] = Stage::Asked(stands);
    }
}
