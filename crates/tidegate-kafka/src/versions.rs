//! Which version of each API to speak: the highest that both sides know, and that we have tried.

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::VersionRange;

use crate::error::{Error, ErrorKind};

/// The versions that one broker offers, by API key.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    offered: Vec<(i16, i16, i16)>,
    /// Feature levels that the cluster has finalised (KIP-584): name and level.
    finalised: Vec<(String, i16)>,
    /// How often the cluster had changed them: of two answers, the one with more is newer.
    finalised_epoch: i64,
}

impl Versions {
    pub(crate) fn from_response(response: &ApiVersionsResponse) -> Self {
        let offered = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        let finalised = response
            .finalized_features
            .iter()
            .map(|feature| (feature.name.to_string(), feature.max_version_level))
            .collect();
        Self {
            offered,
            finalised,
            finalised_epoch: response.finalized_features_epoch,
        }
    }

    /// The lowest and highest version of `api_key` that the broker offers.
    pub fn offered(&self, api_key: i16) -> Option<(i16, i16)> {
        self.offered
            .iter()
            .find(|(key, ..)| *key == api_key)
            .map(|(_, lowest, highest)| (*lowest, *highest))
    }

    /// How many APIs the broker offers.
    pub fn count(&self) -> usize {
        self.offered.len()
    }

    /// The level of a feature that the cluster has finalised, such as `transaction.version`.
    pub fn finalised_feature(&self, name: &str) -> Option<i16> {
        self.finalised
            .iter()
            .find(|(feature, _)| feature == name)
            .map(|(_, level)| *level)
    }

    /// How often the cluster had changed its finalised features when it told of them; -1 if it has none.
    pub fn finalised_epoch(&self) -> i64 {
        self.finalised_epoch
    }

    /// The highest version of `api_key` that the broker offers and that lies within `ours`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if there is none.
    pub fn choose(&self, api_key: i16, ours: VersionRange) -> Result<i16, Error> {
        let Some((lowest, highest)) = self.offered(api_key) else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the broker does not offer the API {}", api_name(api_key)),
            ));
        };
        let chosen = highest.min(ours.max);
        if chosen < lowest || chosen < ours.min {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "no common version of {}: the broker offers {lowest} to {highest}, this client {} to {} \
                     (brokers from 3.3 on are supported)",
                    api_name(api_key),
                    ours.min,
                    ours.max
                ),
            ));
        }
        Ok(chosen)
    }
}

/// The name of an API for messages: `Produce`, `Metadata`.
pub(crate) fn api_name(api_key: i16) -> String {
    use kafka_protocol::messages::ApiKey;
    match ApiKey::try_from(api_key) {
        Ok(key) => format!("{key:?}").trim_end_matches("Key").to_owned(),
        Err(()) => format!("with key {api_key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(lowest: i16, highest: i16) -> Versions {
        Versions {
            offered: vec![(3, lowest, highest)],
            ..Versions::default()
        }
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let ours = VersionRange { min: 4, max: 12 };
        assert_eq!(offering(0, 9).choose(3, ours).unwrap(), 9);
        assert_eq!(offering(0, 99).choose(3, ours).unwrap(), 12);
        for versions in [offering(0, 3), offering(13, 14)] {
            let error = versions.choose(3, ours).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(error.to_string().contains("Metadata"), "{error}");
        }
        assert_eq!(
            offering(0, 3).choose(7, ours).unwrap_err().kind(),
            ErrorKind::Protocol
        );
    }
}
