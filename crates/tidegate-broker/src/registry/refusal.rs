//! What the registry answers instead of a result: HTTP status, error code and message, as Confluent's registry numbers them.

use std::fmt;

/// A request that was not fulfilled. The number is `error_code` of the answer; its first three digits are the HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The HTTP status that goes with the code: 40401 is a 404, 409 is itself.
    pub(super) fn status(&self) -> u16 {
        let status = if self.code > 999 {
            self.code / 100
        } else {
            self.code
        };
        u16::try_from(status).unwrap_or(500)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(super) fn subject_missing(subject: &str) -> Self {
        Self::new(40401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn version_missing(version: impl fmt::Display) -> Self {
        Self::new(40402, format!("Version {version} not found."))
    }

    pub(super) fn id_missing(id: u32) -> Self {
        Self::new(40403, format!("Schema {id} not found"))
    }

    pub(super) fn schema_missing() -> Self {
        Self::new(40403, "Schema not found")
    }

    pub(super) fn subject_soft_deleted(subject: &str) -> Self {
        Self::new(
            40404,
            format!(
                "Subject '{subject}' is soft-deleted already; delete it with permanent=true to remove it for good"
            ),
        )
    }

    pub(super) fn subject_not_soft_deleted(subject: &str) -> Self {
        Self::new(
            40405,
            format!("Subject '{subject}' must be soft-deleted before it can be removed for good"),
        )
    }

    pub(super) fn version_soft_deleted(subject: &str, version: u32) -> Self {
        Self::new(
            40406,
            format!(
                "Version {version} of subject '{subject}' is soft-deleted already; delete it with permanent=true to remove it for good"
            ),
        )
    }

    pub(super) fn version_not_soft_deleted(subject: &str, version: u32) -> Self {
        Self::new(
            40407,
            format!(
                "Version {version} of subject '{subject}' must be soft-deleted before it can be removed for good"
            ),
        )
    }

    pub(super) fn level_not_configured(subject: &str) -> Self {
        Self::new(
            40408,
            format!("Subject '{subject}' does not have subject-level compatibility configured"),
        )
    }

    pub(super) fn incompatible(subject: &str, messages: &[String]) -> Self {
        Self::new(
            409,
            format!(
                "Schema being registered is incompatible with an earlier schema for subject \"{subject}\": {}",
                messages.join("; ")
            ),
        )
    }

    pub(super) fn invalid_schema(message: impl Into<String>) -> Self {
        Self::new(42201, message)
    }

    pub(super) fn invalid_version(version: &str) -> Self {
        Self::new(
            42202,
            format!(
                "The version '{version}' is not valid: a number from 1 to 2147483647, or \"latest\""
            ),
        )
    }

    pub(super) fn invalid_level(level: &str) -> Self {
        Self::new(
            42203,
            format!(
                "Invalid compatibility level '{level}': NONE, BACKWARD, BACKWARD_TRANSITIVE, FORWARD, FORWARD_TRANSITIVE, FULL or FULL_TRANSITIVE"
            ),
        )
    }

    pub(super) fn mode_fixed() -> Self {
        Self::new(42205, "the embedded registry is always in mode READWRITE")
    }

    pub(super) fn storage(error: &std::io::Error) -> Self {
        Self::new(
            50001,
            format!("the registry's journal could not be written: {error}"),
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_in_the_code() {
        assert_eq!(Refusal::subject_missing("s").status(), 404);
        assert_eq!(Refusal::incompatible("s", &[]).status(), 409);
        assert_eq!(Refusal::invalid_level("X").status(), 422);
        assert_eq!(
            Refusal::storage(&std::io::Error::other("full")).status(),
            500
        );
    }
}
