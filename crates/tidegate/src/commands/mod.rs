//! The commands, one file each. A command resolves what was typed, does it, and returns its summary or a failure; nothing here prints a
//! summary or knows an exit code.

mod balance;
mod broker;
mod consume;
mod doctor;
mod job;
mod publish;
mod schema;
mod verify;

use tidegate_wire::Compression;

use crate::args::{Codec, Command};
use crate::failure::Failure;
use crate::report::Finished;
use crate::service::Context;

/// Runs what was typed.
pub(crate) fn run(command: &Command, context: &mut Context) -> Result<Finished, Failure> {
    match command {
        Command::Publish(args) => publish::run(args, context),
        Command::Consume(args) => consume::run(args, context),
        Command::Balance(args) => balance::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::Job(args) => job::run(args, context),
        Command::Schema(args) => schema::run(args, context),
        Command::Broker(args) => broker::run(args, context),
    }
}

/// The codec as the client names it.
pub(crate) fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::None => Compression::None,
    }
}
