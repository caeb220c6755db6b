//! Asks the cluster what the machine wants to know, on a thread of its own: an answer may take a while, and the driver must not wait.

use std::sync::mpsc::{Receiver, SyncSender};

use kafka_protocol::messages::InitProducerIdRequest;

use super::machine::{Event, Identity, Leader, Leadership, Slot};
use super::runner::Signal;
use super::shared::Target;
use crate::client::{Client, check};
use crate::cluster::ClusterView;
use crate::error::Error;

/// Asked for by the machine, one of each sort at a time.
#[derive(Debug)]
pub(super) enum Question {
    Leaders(Vec<(Slot, Target)>),
    Identity,
}

/// The asker's thread: until the driver drops the other end of `questions`.
pub(super) fn run(client: &Client, questions: &Receiver<Question>, driver: &SyncSender<Signal>) {
    for question in questions {
        let event = match question {
            Question::Leaders(slots) => leaders(client, &slots),
            Question::Identity => match init_producer_id(client) {
                Ok(identity) => Event::Renewed(identity),
                Err(error) => Event::Refused {
                    kind: error.kind(),
                    why: error.to_string(),
                },
            },
        };
        if driver.send(Signal::Event(event)).is_err() {
            return;
        }
    }
}

/// A producer id without a transactional id: any broker gives one.
pub(super) fn init_producer_id(client: &Client) -> Result<Identity, Error> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    client.retrying(&[], |client| {
        let answer = client.call_any(&request)?;
        check("obtain a producer id", answer.error_code, None)?;
        Ok(Identity {
            producer_id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        })
    })
}

fn leaders(client: &Client, slots: &[(Slot, Target)]) -> Event {
    let mut topics: Vec<&str> = slots.iter().map(|(_, target)| &*target.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    match client.refresh(&topics) {
        Ok(view) => Event::Metadata(
            slots
                .iter()
                .map(|(slot, target)| (*slot, leader_of(&view, target)))
                .collect(),
        ),
        Err(error) => Event::MetadataFailed(error.to_string()),
    }
}

fn leader_of(view: &ClusterView, target: &Target) -> Leader {
    let Some(topic) = view.topics.get(&*target.topic) else {
        return Leader::Missing;
    };
    match topic.error_code {
        0 if target.is_made_anew(topic) => Leader::Recreated,
        0 => match topic.partition(target.partition) {
            None => Leader::Missing,
            // A leader that is not among the brokers is one that has just died.
            Some(partition) if view.brokers.contains_key(&partition.leader) => {
                Leader::Known(Leadership {
                    node: partition.leader,
                    epoch: partition.leader_epoch,
                })
            }
            Some(_) => Leader::Nobody,
        },
        // UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID.
        3 | 100 => Leader::Missing,
        code => Leader::Refused(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{BrokerAddress, PartitionView, TopicView};
    use std::sync::Arc;

    fn view(topic: TopicView) -> ClusterView {
        let mut view = ClusterView::default();
        let address = BrokerAddress {
            host: "a".to_owned(),
            port: 1,
            rack: None,
        };
        view.brokers.insert(1, address);
        view.topics.insert("usage".to_owned(), topic);
        view
    }

    fn topic(error_code: i16, leader: i32) -> TopicView {
        let partition = PartitionView {
            partition: 0,
            leader,
            leader_epoch: 7,
            replicas: Vec::new(),
            isr: Vec::new(),
            error_code: 0,
        };
        TopicView {
            id: [1; 16],
            error_code,
            partitions: vec![partition],
        }
    }

    #[test]
    fn a_leader_is_known_missing_or_refused() {
        let target = |partition| Target {
            topic: Arc::from("usage"),
            topic_id: [1; 16],
            partition,
        };
        let known = Leader::Known(Leadership { node: 1, epoch: 7 });
        assert_eq!(leader_of(&view(topic(0, 1)), &target(0)), known);
        assert_eq!(leader_of(&view(topic(0, 2)), &target(0)), Leader::Nobody);
        assert_eq!(leader_of(&view(topic(0, -1)), &target(0)), Leader::Nobody);
        assert_eq!(leader_of(&view(topic(0, 1)), &target(1)), Leader::Missing);
        assert_eq!(leader_of(&view(topic(3, 1)), &target(0)), Leader::Missing);
        assert_eq!(
            leader_of(&view(topic(29, 1)), &target(0)),
            Leader::Refused(29)
        );
        assert_eq!(
            leader_of(&ClusterView::default(), &target(0)),
            Leader::Missing
        );
        let recreated = Target {
            topic_id: [2; 16],
            ..target(0)
        };
        assert_eq!(leader_of(&view(topic(0, 1)), &recreated), Leader::Recreated);
    }
}
