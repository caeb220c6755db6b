//! `tidegate doctor`: looks at all that a load depends on, and says of each whether it is as it should be.

use serde_json::json;

use crate::args::DoctorArgs;
use crate::doctor::{Findings, cluster, network, registry, round_trip};
use crate::failure::Failure;
use crate::report::{AnswerSummary, Finished, Summary};
use crate::service::{Context, Reach};

/// Runs the command.
pub(crate) fn run(args: &DoctorArgs, context: &mut Context) -> Result<Finished, Failure> {
    let mut findings = Findings::default();
    look(args, context, &mut findings)?;
    let answer = AnswerSummary {
        text: findings.text(),
        json: json!({ "status": findings.level().name(), "checks": findings.json() }),
    };
    Ok(Finished {
        summary: Summary::Answer(answer),
        failure: findings.failure(),
    })
}

fn look(args: &DoctorArgs, context: &mut Context, findings: &mut Findings) -> Result<(), Failure> {
    let reach = Reach {
        cluster: &args.cluster,
        registry: Some(&args.registry),
        delivery_timeout: None,
    };
    // What was typed wrong ends the command: there is nothing to look at.
    let named = context.named_cluster(reach)?;
    if let Some(config) = &named
        && !network::check_named(config, findings)
    {
        return Ok(());
    }
    let Some(service) = findings.take("cluster", context.connect(reach)) else {
        return Ok(());
    };
    let client = &service.client;
    let view = client.view();
    let id = view.cluster_id.as_deref().unwrap_or("without an id");
    let whose = if service.embedded { ", embedded" } else { "" };
    findings.ok(
        "cluster",
        format!("{id}: brokers {}{whose}", view.brokers.len()),
    );
    network::check_advertised(client, findings);
    cluster::check_cluster(client, findings);
    let topic = args.topic.as_deref();
    let existing = topic.filter(|name| cluster::check_topic(client, args, name, findings));
    cluster::check_rights(client, args, existing, findings);
    if let Some(group) = &args.group {
        cluster::check_group(client, group, findings);
    }
    match &service.registry {
        Some(found) => registry::check(found, topic, findings),
        None => findings.ok(
            "registry",
            "none is named: only --format json does without one",
        ),
    }
    if let Some(topic) = existing.filter(|_| args.round_trip)
        && let Some(said) = findings.take("round trip", round_trip::make(client, topic))
    {
        findings.ok("round trip", said);
    }
    Ok(())
}
