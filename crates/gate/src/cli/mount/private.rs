//! A view that one agent sees, and nobody else: served here, mounted elsewhere.
//!
//! `gate run` mounts it in the mount namespace of what it runs and hands its device over. This
//! process has never seen that namespace, and keeps nothing of it: when its last process is gone
//! the kernel ends the view. So it comes past the view to its own program, settings and tokens, and
//! unlike a view in place a private one may show these.

use std::sync::Arc;

use gate_fuse::Device;
use gate_view::mount::{Berth, Ears};
use rustix::net::sockopt::socket_peercred;

use super::site::Site;
use super::{Args, Plan, bad_glob, in_place};
use crate::background;
use crate::config::{Settings, SourceSettings};
use crate::failure::{Exit, Failure};
use crate::footing::Footing;
use crate::reach::{Reached, Unreached, Wanted, connect};

impl Args {
    /// Serves a view that another process mounts.
    pub(super) fn serve_privately(self, agent: String) -> Result<Exit, Failure> {
        let dir = self.root.as_deref().expect("`gate run` names one");
        let footing = Footing::find(dir)?;
        let plan = self.plan_privately(&footing)?;
        let reached = self.reach_behind(&footing, &plan)?;
        if let Some(theirs) = reached.state_dir_here() {
            plan.site.check_state(&theirs)?;
        }
        let attachment = self.attach(&reached, &plan)?;
        let log = format!("run-{}", plan.site.log_name());
        let log = background::log_file(&plan.state_dir, &log);
        let ready = self.mount(reached, &attachment, plan)?;
        let what = || format!("the private view of {agent} came to an end");
        background::ready(&log).map_err(|error| Failure::new(what(), error, "try again"))?;
        ready.serve().map_err(|error| Failure::new(what(), error, "run its command again"))?;
        Ok(Exit::Success)
    }

    fn plan_privately(&self, footing: &Footing) -> Result<Plan, Failure> {
        let device = Device::taken_over(std::io::stdin())
            .map_err(|error| Failure::new("cannot serve a private view", error, "try again"))?;
        // Who was to mount it could not, and says so.
        let device = device.ok_or_else(|| Failure::silent(Exit::Failed))?;
        let site = Site { source: footing.source.clone(), mountpoint: footing.mountpoint.clone() };
        let settings = Settings::load()?;
        let state_dir = self.broker.state_dir(&settings)?;
        site.check_state(&state_dir)?;
        site.check_gated()?;
        in_place::check_mounts_inside(&site)?;
        let source = footing.open()?;
        let policies = match footing.policies() {
            Some(policies) => policies.map_err(|bad| bad_glob(&bad))?,
            None => self
                .turns
                .policies(&settings, SourceSettings::load(&source.bare(), &site.source)?)?,
        };
        // Who has mounted it, and waits for this process.
        let seen_by = socket_peercred(std::io::stdin()).ok().map(|peer| peer.pid);
        let (berth, ears) = (Berth::Elsewhere { device, seen_by }, Ears::new());
        Ok(Plan { source, site, berth, state_dir, policies, settings, ears })
    }

    /// Reaches the broker of the view that is there already, or else the usual one.
    fn reach_behind(&self, footing: &Footing, plan: &Plan) -> Result<Reached, Failure> {
        let wanted = Wanted::find(&self.broker, &plan.settings)?;
        let Some(address) = footing.broker() else { return self.reach(&wanted, plan) };
        let client = self.client("gate run".to_owned(), plan);
        let watcher = Arc::new(plan.ears.clone()) as _;
        match connect(&wanted.approach(address.clone()), &client, &watcher) {
            Ok(session) => Ok(Reached { session, address }),
            Err(error) => Err(Unreached { address, error }.into()),
        }
    }
}
