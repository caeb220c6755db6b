//! What can be typed behind `tidegate job`, and wherever else a job is named.

use clap::{Args, Subcommand};

use super::ClusterArgs;

/// Which job a load is.
#[derive(Clone, Debug, Args)]
pub(crate) struct JobArgs {
    /// Identity of the load, taken literally: its transactional id, and the key of its position [default: TOPIC:PATH]
    #[arg(long, value_name = "ID")]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) positions: PositionsArgs,
}

/// Where positions are kept.
#[derive(Clone, Debug, Args)]
pub(crate) struct PositionsArgs {
    /// Topic that holds the positions of jobs
    #[arg(long, value_name = "NAME", default_value = "tidegate-positions")]
    pub(crate) positions_topic: String,
}

/// `tidegate job`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Print every job that has a position, and where it stands
    List(JobListArgs),
    /// Print where a job stands, and what it has in the topic
    Show(JobIdArgs),
    /// Forget where a job stands: its load begins at the first row again; whoever runs it is stopped
    Forget(JobIdArgs),
}

/// `tidegate job list`.
#[derive(Debug, Args)]
pub(crate) struct JobListArgs {
    #[command(flatten)]
    pub(crate) positions: PositionsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// `tidegate job show` and `tidegate job forget`.
#[derive(Debug, Args)]
pub(crate) struct JobIdArgs {
    /// The job's id, as `tidegate job list` prints it
    #[arg(value_name = "ID")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) positions: PositionsArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}
