//! What can be typed behind `tidegate doctor`.

use clap::Args;

use super::{ClusterArgs, JobArgs, RegistryArgs};

/// `tidegate doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Topic that is to be loaded: looks at its settings, its subject, and the rights on it
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Consumer group that a load is to wait for
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// A missing topic may be created: asks the cluster whether it would be
    #[arg(long, requires = "topic")]
    pub(crate) create_topic: bool,
    /// Write one record to the topic in a transaction, read it back, and roll it back: only readers of uncommitted records see it
    #[arg(long, requires = "topic")]
    pub(crate) round_trip: bool,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
