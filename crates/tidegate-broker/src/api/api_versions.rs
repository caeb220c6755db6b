//! ApiVersions (18): which APIs are served, in which versions.

use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{StrBytes, VersionRange};

use super::{Api, Context, SERVED};
use crate::codes;
use crate::config::MAX_TRANSACTION_VERSION;

/// The feature whose level says which transaction protocols there are. (KIP-890)
const TRANSACTION_VERSION: &str = "transaction.version";

/// The first version in which a feature's range may begin at 0.
const FEATURES_FROM_ZERO: i16 = 4;

impl Api for ApiVersionsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 4 };

    async fn handle(self, context: &Context) -> ApiVersionsResponse {
        // Since version 3 clients say what they are, in characters fit for a metric's name. (KIP-511)
        let named = is_software_name(&self.client_software_name)
            && is_software_name(&self.client_software_version);
        if context.version >= 3 && !named {
            return self.refuse(context, codes::INVALID_REQUEST);
        }
        let response =
            ApiVersionsResponse::default().with_api_keys(SERVED.iter().map(advertised).collect());
        with_features(response, context)
    }

    fn refuse(&self, _: &Context, code: i16) -> ApiVersionsResponse {
        ApiVersionsResponse::default().with_error_code(code)
    }
}

/// Tells of the one feature there is. By its finalised level clients choose how they do transactions.
fn with_features(response: ApiVersionsResponse, context: &Context) -> ApiVersionsResponse {
    let name = StrBytes::from_static_str(TRANSACTION_VERSION);
    let supported = SupportedFeatureKey::default()
        .with_name(name.clone())
        .with_min_version(0)
        .with_max_version(MAX_TRANSACTION_VERSION);
    let level = context.shared.config.transaction_version;
    let finalized = FinalizedFeatureKey::default()
        .with_name(name)
        .with_min_version_level(level)
        .with_max_version_level(level);
    response
        // Older clients cannot read a range that begins at 0; as Kafka, leave it out for them. (KIP-1022)
        .with_supported_features(match context.version {
            FEATURES_FROM_ZERO.. => vec![supported],
            _ => Vec::new(),
        })
        .with_finalized_features_epoch(i64::from(context.shared.leader_epoch()))
        // Level 0 is what a cluster has that never heard of the feature: it does not name it.
        .with_finalized_features(if level > 0 { vec![finalized] } else { Vec::new() })
}

/// The answer, in version 0, to a version that is not served: it names those of this API.
pub(super) fn unsupported() -> ApiVersionsResponse {
    let own = SERVED
        .iter()
        .filter(|(key, _)| *key == ApiKey::ApiVersions)
        .map(advertised);
    ApiVersionsResponse::default()
        .with_error_code(codes::UNSUPPORTED_VERSION)
        .with_api_keys(own.collect())
}

fn advertised((key, versions): &(ApiKey, VersionRange)) -> ApiVersion {
    // Older librdkafka concludes from the range of Produce which codecs a broker knows. Kafka 4 says 0 for
    // its sake, although it serves 3 and later only (KAFKA-18659); so does this broker.
    let min = match key {
        ApiKey::Produce => 0,
        _ => versions.min,
    };
    ApiVersion::default()
        .with_api_key(*key as i16)
        .with_min_version(min)
        .with_max_version(versions.max)
}

fn is_software_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for good in ["librdkafka", "apache-kafka-java", "4.3.1", "a"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
