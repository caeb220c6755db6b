//! The rights that a command needs, and those of them that are missing: asked for before anything is sent, so that nobody learns of it in the
//! middle of a load.

use tidegate::kafka::{Client, Operation};

use crate::failure::{Failure, Kind};

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    /// A topic that exists.
    Topic(&'a str),
    /// A consumer group.
    Group(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

/// A right, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    /// On what.
    pub(crate) resource: Resource<'a>,
    /// To do what.
    pub(crate) operation: Operation,
    /// Why, to stand behind "which".
    pub(crate) why: &'static str,
}

impl<'a> Need<'a> {
    /// A right on a topic.
    pub(crate) fn topic(name: &'a str, operation: Operation, why: &'static str) -> Self {
        Self {
            resource: Resource::Topic(name),
            operation,
            why,
        }
    }

    /// The right to see how a group stands.
    pub(crate) fn group(name: &'a str, why: &'static str) -> Self {
        Self {
            resource: Resource::Group(name),
            operation: Operation::Describe,
            why,
        }
    }

    /// The right to write with a transactional id.
    pub(crate) fn transactional_id(id: &'a str) -> Self {
        Self {
            resource: Resource::TransactionalId(id),
            operation: Operation::Write,
            why: "loading exactly once needs",
        }
    }

    /// What it is on, as the option of Kafka's own tool has it.
    fn described(&self) -> (&'static str, &'static str, &'a str) {
        match self.resource {
            Resource::Topic(name) => ("topic", "--topic", name),
            Resource::Group(name) => ("group", "--group", name),
            Resource::TransactionalId(id) => ("transactional id", "--transactional-id", id),
        }
    }

    /// What it is, for a list.
    pub(crate) fn name(&self) -> String {
        let (what, _, name) = self.described();
        format!("{} on {what} {name}", self.operation.name())
    }

    /// The failure of a command that goes without it.
    pub(crate) fn missing(&self) -> Failure {
        let (what, option, name) = self.described();
        let (operation, why) = (self.operation.name(), self.why);
        let message = format!("{what} {name}: the right to {operation} is missing, which {why}");
        Failure::new(Kind::Rights, message).hint(format!(
            "whoever administers the cluster can give it: kafka-acls.sh --add --allow-principal User:NAME --operation {operation} {option} {name}"
        ))
    }
}

/// Whether each right is given, in their order; `None` where the broker does not say.
pub(crate) fn look(client: &Client, needs: &[Need<'_>]) -> Result<Vec<Option<bool>>, Failure> {
    let admin = client.admin();
    let topics: Vec<&str> = needs
        .iter()
        .filter_map(|need| match need.resource {
            Resource::Topic(name) => Some(name),
            _ => None,
        })
        .collect();
    let found = if topics.is_empty() {
        Default::default()
    } else {
        admin.topic_rights(&topics)?
    };
    let given = needs.iter().map(|need| match need.resource {
        Resource::Topic(name) => Ok(found
            .get(name)
            .and_then(|rights| rights.allow(need.operation))),
        Resource::Group(name) => admin.may_see_group(name).map(Some),
        // Who may only describe it finds out at the first transaction.
        Resource::TransactionalId(id) => match admin.may_see_transactional_id(id) {
            Ok(true) => Ok(None),
            refused => refused.map(Some),
        },
    });
    Ok(given.collect::<Result<_, _>>()?)
}

/// Refuses to go on without one of these rights.
pub(crate) fn require(client: &Client, needs: &[Need<'_>]) -> Result<(), Failure> {
    let given = look(client, needs)?;
    match needs
        .iter()
        .zip(given)
        .find(|(_, given)| *given == Some(false))
    {
        Some((need, _)) => Err(need.missing()),
        None => Ok(()),
    }
}
