//! What facts mean: each check a function of its own.

mod broker;
mod bypass;
mod machine;
mod state;
mod view;

use super::Finding;
use super::facts::Facts;

/// Checks everything, what others rest on first.
pub fn all(facts: &Facts) -> Vec<Finding> {
    let machine = &facts.machine;
    let mut findings = vec![
        machine::kernel(&machine.kernel),
        machine::device(&machine.device, &machine.surroundings),
        machine::fusermount(machine.fusermount.as_ref(), machine.may_mount),
        machine::trial(&facts.trial),
        machine::private_views(machine.may_mount, &machine.namespaces),
        machine::allow_other(machine.user_allow_other, machine.may_mount),
        machine::open_files(&machine.descriptors),
        machine::backing(&machine.kernel, machine.may_back),
        machine::watches(machine.watches),
        machine::kin(machine.ptrace_scope, machine.may_trace),
        machine::surroundings(&machine.surroundings),
    ];
    findings.extend(broker::all(&facts.broker));
    findings.extend(state::all(&facts.state));
    findings.extend(facts.bypasses.iter().flat_map(bypass::all));
    findings.extend(facts.views.iter().map(view::one));
    findings
}
