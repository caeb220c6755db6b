//! OffsetFetch (9): the positions groups have committed.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, text};
use crate::codes;
use crate::journal::{Committed, GroupOffsets};
use crate::shared::Shared;

/// The first version that asks for several groups at once. (KIP-709)
const SEVERAL_GROUPS: i16 = 8;

/// The first version with an error code for the whole answer.
const ERROR_CODE: i16 = 2;

/// The topics asked for, each with its partitions; `None` asks for all there are.
type Asked = Option<Vec<(String, Vec<i32>)>>;

/// What is known of one partition: its position, if there is one, or why none can be told now.
type Position = Result<Option<Committed>, i16>;

/// What is known of the partitions asked for.
type Found = Vec<(String, Vec<(i32, Position)>)>;

impl Api for OffsetFetchRequest {
    const SERVED: VersionRange = VersionRange { min: 1, max: 9 };

    async fn handle(self, context: &Context) -> OffsetFetchResponse {
        let shared = &context.shared;
        if context.version < SEVERAL_GROUPS {
            let topics = find(shared, &self.group_id, single(&self), self.require_stable);
            let topics = topics.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter();
                OffsetFetchResponseTopic::default()
                    .with_name(TopicName(text(name)))
                    .with_partitions(
                        partitions
                            .map(|(index, found)| one_partition(index, found, context.version))
                            .collect(),
                    )
            });
            return OffsetFetchResponse::default().with_topics(topics.collect());
        }
        let groups = self.groups.iter().map(|group| {
            let asked = group.topics.as_ref().map(|topics| {
                let topics = topics.iter();
                topics
                    .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
                    .collect()
            });
            // Nobody in particular may ask of any group. (KIP-848)
            let member = group
                .member_id
                .as_deref()
                .filter(|_| group.member_epoch >= 0);
            let checked = member.map_or(Ok(()), |member| {
                let groups = &shared.groups;
                groups.check_reader(&group.group_id, member, group.member_epoch)
            });
            if let Err(code) = checked {
                return refused_group(&group.group_id, code);
            }
            let found = find(shared, &group.group_id, asked, self.require_stable);
            one_group(&group.group_id, found)
        });
        OffsetFetchResponse::default().with_groups(groups.collect())
    }

    fn refuse(&self, context: &Context, code: i16) -> OffsetFetchResponse {
        match context.version {
            SEVERAL_GROUPS.. => {
                let groups = self.groups.iter();
                let groups = groups.map(|group| refused_group(&group.group_id, code));
                OffsetFetchResponse::default().with_groups(groups.collect())
            }
            ERROR_CODE.. => OffsetFetchResponse::default().with_error_code(code),
            _ => {
                let topics = single(self).unwrap_or_default();
                let topics = topics.into_iter().map(|(name, partitions)| {
                    let partitions = partitions.into_iter();
                    OffsetFetchResponseTopic::default()
                        .with_name(TopicName(text(name)))
                        .with_partitions(
                            partitions
                                .map(|index| one_partition(index, Err(code), context.version))
                                .collect(),
                        )
                });
                OffsetFetchResponse::default().with_topics(topics.collect())
            }
        }
    }

    fn partitions(&self, _: &Shared) -> Vec<(String, i32)> {
        let single = single(self).into_iter().flatten();
        let several = self.groups.iter().flat_map(|group| {
            let topics = group.topics.iter().flatten();
            topics.map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
        });
        single
            .chain(several)
            .flat_map(|(name, partitions)| {
                let partitions = partitions.into_iter();
                partitions.map(move |partition| (name.clone(), partition))
            })
            .collect()
    }

    fn group(&self) -> Option<String> {
        let first = self.groups.first().map(|group| &group.group_id);
        Some(first.unwrap_or(&self.group_id).to_string())
    }
}

fn refused_group(id: &GroupId, code: i16) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup::default()
        .with_group_id(id.clone())
        .with_error_code(code)
}

fn single(request: &OffsetFetchRequest) -> Asked {
    let topics = request.topics.as_ref()?.iter();
    Some(
        topics
            .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
            .collect(),
    )
}

/// With `stable` a position that a transaction is about to change is not told: whoever went on from it would
/// repeat what the transaction covers. (KIP-447)
fn find(shared: &Shared, group: &str, asked: Asked, stable: bool) -> Found {
    let journal = shared.journal();
    let metadata = journal.metadata();
    let none = GroupOffsets::new();
    let known = metadata.offsets.get(group).unwrap_or(&none);
    let position = |place: &(String, i32)| {
        if stable && metadata.is_offset_pending(group, place) {
            return Err(codes::UNSTABLE_OFFSET_COMMIT);
        }
        Ok(known.get(place).cloned())
    };
    let Some(asked) = asked else {
        let mut by_topic: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for place in known.keys() {
            let (topic, partition) = place;
            let entry = (*partition, position(place));
            by_topic.entry(topic.clone()).or_default().push(entry);
        }
        return by_topic.into_iter().collect();
    };
    asked
        .into_iter()
        .map(|(topic, partitions)| {
            let found = partitions
                .into_iter()
                .map(|partition| (partition, position(&(topic.clone(), partition))))
                .collect();
            (topic, found)
        })
        .collect()
}

/// The code and what is committed; where nothing is, what stands for that.
fn code_and_position(found: Position) -> (i16, Committed) {
    let nothing = Committed::new(-1, -1, None);
    match found {
        Ok(committed) => (codes::NONE, committed.unwrap_or(nothing)),
        Err(code) => (code, nothing),
    }
}

fn one_partition(index: i32, found: Position, version: i16) -> OffsetFetchResponsePartition {
    let (code, committed) = code_and_position(found);
    let answer = OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_committed_offset(committed.offset)
        .with_metadata(Some(text(committed.metadata)));
    if version >= 5 {
        answer.with_committed_leader_epoch(committed.leader_epoch)
    } else {
        answer
    }
}

fn one_group(group: &GroupId, found: Found) -> OffsetFetchResponseGroup {
    let topics = found.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, found)| {
            let (code, committed) = code_and_position(found);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_error_code(code)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(text(committed.metadata)))
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(group.clone())
        .with_topics(topics.collect())
}
