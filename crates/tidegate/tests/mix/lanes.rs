//! The lanes on which faults happen beside the program: one for the brokers, two for the line. On each, one fault is over before the next begins.

use std::time::Duration;

use tidegate_testkit::proxy::{ActiveRule, Proxy, Rule, Verb};

use crate::book::Shared;
use crate::brokers::Brokers;
use crate::plan::{BrokerFault, Line, LineFault, Step};

/// How long a request that is held waits for one that it is about, before the program is killed for it.
const LOOK: Duration = Duration::from_millis(20);

/// Works off the steps for the brokers until the phase is over; all nodes run then.
pub(crate) fn brokers(brokers: &mut Brokers, steps: &[Step<BrokerFault>], shared: &Shared) {
    for step in steps {
        if !shared.pause(step.pause) {
            return;
        }
        shared.tell(&format!("{:?} for {:?}", step.fault, step.lasts));
        let hit = brokers.strike(step.fault, shared);
        if !hit.is_empty() {
            shared.fire(step.fault.name());
        }
        shared.pause(step.lasts);
        brokers.heal(step.fault, &hit, shared);
        shared.tell(&format!("{:?} is over", step.fault));
    }
}

/// Works off steps for the line until the phase is over; no rule is left then.
pub(crate) fn line(proxy: &Proxy, steps: &[Step<Line>], shared: &Shared) {
    for step in steps {
        if !shared.pause(step.pause) {
            return;
        }
        let fired = match step.fault.fault {
            LineFault::Refused => refuse(proxy, step.lasts, shared),
            LineFault::AllReset => proxy.reset_connections() as u64,
            fault => by_rule(proxy, step, fault, shared),
        };
        if fired > 0 {
            shared.fire(step.fault.name());
            shared.count("frames and connections hit", fired);
        }
    }
}

fn refuse(proxy: &Proxy, lasts: Duration, shared: &Shared) -> u64 {
    let before = proxy.refused();
    proxy.refuse();
    shared.pause(lasts);
    proxy.accept();
    proxy.refused() - before
}

fn by_rule(proxy: &Proxy, step: &Step<Line>, fault: LineFault, shared: &Shared) -> u64 {
    let line = &step.fault;
    let verb = match fault {
        LineFault::Lost => Verb::Drop,
        LineFault::Delayed(time) => Verb::Delay(time),
        LineFault::Held { .. } => Verb::Hold,
        LineFault::Reset => Verb::Reset,
        LineFault::HalfOpen => Verb::HalfOpen,
        LineFault::Slow(rate) => Verb::Slow(rate),
        LineFault::Refused | LineFault::AllReset => Verb::Pass,
    };
    let rule = match line.api_key {
        Some(api_key) => Rule::new(api_key, verb),
        None => Rule::any(verb),
    };
    let rule = rule.after(line.spared).times(line.times);
    let rule = if line.on_answer {
        rule.on_answer()
    } else {
        rule
    };
    let rule = proxy.inject(rule);
    if fault == (LineFault::Held { kill: true }) {
        kill_when_held(&rule, step.lasts, shared);
    }
    shared.pause(step.lasts);
    rule.remove();
    rule.release();
    rule.fired()
}

/// Has the program killed as soon as something of it is held.
fn kill_when_held(rule: &ActiveRule, patience: Duration, shared: &Shared) {
    let mut waited = Duration::ZERO;
    while waited < patience && shared.pause(Duration::ZERO) {
        if rule.wait_fired(1, LOOK) {
            shared.ask_for_kill();
            return;
        }
        waited += LOOK;
    }
}
