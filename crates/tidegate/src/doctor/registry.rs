//! The registry: whether it answers and believes who we are, and what it has of the topic.

use tidegate::registry::Registry;

use super::Findings;
use crate::failure::Failure;

/// Looks at the registry, and at the subject of the topic's values.
pub(crate) fn check(registry: &Registry, topic: Option<&str>, findings: &mut Findings) {
    let Some(topic) = topic else {
        let subjects = registry.subjects().map_err(Failure::from);
        if let Some(subjects) = findings.take("registry", subjects) {
            findings.ok("registry", format!("subjects {}", subjects.len()));
        }
        return;
    };
    let subject = format!("{topic}-value");
    let Some(latest) = findings.take("registry", registry.latest(&subject).map_err(Failure::from))
    else {
        return;
    };
    let level = registry.config(&subject);
    let level = level.map_or("not told".to_owned(), |level| level.to_lowercase());
    findings.ok(
        "registry",
        match latest {
            Some(latest) => format!(
                "subject {subject}: version {}, schema id {}, compatibility {level}",
                latest.version, latest.id
            ),
            None => format!("subject {subject}: none yet; compatibility {level}"),
        },
    );
}
