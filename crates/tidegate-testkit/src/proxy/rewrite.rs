//! Answers that name brokers, made to name the proxy, so that clients stay behind it.
//!
//! A version that we cannot read could lead a client past the proxy unseen. So the versions that brokers offer of these APIs are
//! cut to those we know, and others to what the test wants them to be.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, DescribeClusterResponse, FetchResponse, FindCoordinatorResponse,
    MetadataResponse, ProduceResponse, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::hub::Hub;
use super::rules::Seen;

/// The APIs whose answers name brokers.
const NAMING: [ApiKey; 7] = [
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::DescribeCluster,
    ApiKey::ShareFetch,
    ApiKey::ShareAcknowledge,
];
/// The first versions whose answers do.
const PRODUCE_NAMING: i16 = 10;
const FETCH_NAMING: i16 = 16;
/// What a broker answers to a version of ApiVersions that it does not know, in version 0.
const UNSUPPORTED_VERSION: i16 = 35;

/// The answer with other addresses in it; none if it may pass as it is.
pub(super) fn rewrite(hub: &Arc<Hub>, seen: &Seen, frame: &[u8]) -> Option<Vec<u8>> {
    let version = seen.version;
    match seen.api_key {
        ApiKey::ApiVersions => {
            let version = answered_version(version, frame);
            edit::<ApiVersionsResponse>(frame, version, |answer| cap(hub, answer))
        }
        ApiKey::Metadata => edit::<MetadataResponse>(frame, version, |answer| {
            learn_topics(hub, answer);
            for broker in &mut answer.brokers {
                redirect(hub, &mut broker.host, &mut broker.port);
            }
            true
        }),
        ApiKey::FindCoordinator => edit::<FindCoordinatorResponse>(frame, version, |answer| {
            redirect(hub, &mut answer.host, &mut answer.port);
            for found in &mut answer.coordinators {
                redirect(hub, &mut found.host, &mut found.port);
            }
            true
        }),
        ApiKey::DescribeCluster => edit::<DescribeClusterResponse>(frame, version, |answer| {
            for broker in &mut answer.brokers {
                redirect(hub, &mut broker.host, &mut broker.port);
            }
            true
        }),
        ApiKey::Produce if version >= PRODUCE_NAMING => {
            edit::<ProduceResponse>(frame, version, |answer| {
                for node in &mut answer.node_endpoints {
                    redirect(hub, &mut node.host, &mut node.port);
                }
                !answer.node_endpoints.is_empty()
            })
        }
        ApiKey::Fetch if version >= FETCH_NAMING => {
            edit::<FetchResponse>(frame, version, |answer| {
                for node in &mut answer.node_endpoints {
                    redirect(hub, &mut node.host, &mut node.port);
                }
                !answer.node_endpoints.is_empty()
            })
        }
        _ => None,
    }
}

/// Decodes an answer, and encodes it again if `change` says that it did.
fn edit<A: Decodable + Encodable + HeaderVersion>(
    frame: &[u8],
    version: i16,
    change: impl FnOnce(&mut A) -> bool,
) -> Option<Vec<u8>> {
    let mut bytes = Bytes::copy_from_slice(frame);
    let header = ResponseHeader::decode(&mut bytes, A::header_version(version)).ok()?;
    let mut answer = A::decode(&mut bytes, version).ok()?;
    if !change(&mut answer) {
        return None;
    }
    let mut edited = Vec::with_capacity(frame.len() + 64);
    header
        .encode(&mut edited, A::header_version(version))
        .and_then(|()| answer.encode(&mut edited, version))
        .ok()?;
    Some(edited)
}

/// An error answer has no address: an empty host, or port -1.
fn redirect(hub: &Arc<Hub>, host: &mut StrBytes, port: &mut i32) {
    let Ok(target) = u16::try_from(*port) else {
        return;
    };
    if host.is_empty() {
        return;
    }
    match hub.route(host, target) {
        Ok(local) => {
            *host = StrBytes::from_static_str("127.0.0.1");
            *port = i32::from(local);
        }
        // Better no address than one that leads past the proxy.
        Err(_) => *port = 0,
    }
}

fn learn_topics(hub: &Hub, answer: &MetadataResponse) {
    let mut state = hub.state();
    for topic in &answer.topics {
        if let Some(name) = &topic.name
            && !topic.topic_id.is_nil()
        {
            state
                .topics
                .insert(*topic.topic_id.as_bytes(), name.to_string());
        }
    }
}

fn answered_version(version: i16, frame: &[u8]) -> i16 {
    // The header of this answer is a correlation id alone in every version; the error code follows.
    match frame.get(4..6) {
        Some(code) if code == UNSUPPORTED_VERSION.to_be_bytes() => 0,
        _ => version,
    }
}

fn cap(hub: &Hub, answer: &mut ApiVersionsResponse) -> bool {
    let state = hub.state();
    for offered in &mut answer.api_keys {
        if let Some(newest) = state.newest.get(&offered.api_key) {
            offered.max_version = offered.max_version.min(*newest);
        }
        let known = ApiKey::try_from(offered.api_key).ok();
        if let Some(api_key) = known.filter(|api_key| NAMING.contains(api_key)) {
            offered.max_version = offered.max_version.min(api_key.valid_versions().max);
        }
    }
    // Answers of share groups name brokers too, and no client of ours asks for them.
    answer.api_keys.retain(|offered| {
        ![ApiKey::ShareFetch as i16, ApiKey::ShareAcknowledge as i16].contains(&offered.api_key)
    });
    true
}
