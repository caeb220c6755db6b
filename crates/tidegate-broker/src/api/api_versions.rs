//! ApiVersions (18): which APIs are served, in which versions.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::VersionRange;

use super::{Api, Context, SERVED};
use crate::codes;

impl Api for ApiVersionsRequest {
    const SERVED: VersionRange = VersionRange { min: 0, max: 4 };

    async fn handle(self, context: &Context) -> ApiVersionsResponse {
        // Since version 3 clients say what they are, in characters fit for a metric's name. (KIP-511)
        let named = is_software_name(&self.client_software_name)
            && is_software_name(&self.client_software_version);
        if context.version >= 3 && !named {
            return self.refuse(context, codes::INVALID_REQUEST);
        }
        ApiVersionsResponse::default().with_api_keys(SERVED.iter().map(advertised).collect())
    }

    fn refuse(&self, _: &Context, code: i16) -> ApiVersionsResponse {
        ApiVersionsResponse::default().with_error_code(code)
    }
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
