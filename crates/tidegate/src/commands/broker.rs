//! `tidegate broker`: the embedded broker and registry on addresses of one's choice, until a signal.

use std::io::Write;
use std::time::Duration;

use tidegate::broker::{Broker, BrokerConfig};

use crate::args::BrokerArgs;
use crate::failure::Failure;
use crate::report::{Finished, Summary};
use crate::service::Context;

/// How often the signals are looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the command. A signal is how it is meant to end, so that is no failure.
pub(crate) fn run(args: &BrokerArgs, context: &mut Context) -> Result<Finished, Failure> {
    let config = BrokerConfig {
        listen: args.listen,
        registry_listen: Some(args.registry_listen),
        ..BrokerConfig::new(&args.data_dir)
    };
    let broker = Broker::start(config)?;
    for cut in broker.truncations() {
        context.terminal.warn(&format!(
            "the end of a log file was dropped, as a crash had cut it off: {cut:?}"
        ));
    }
    announce(&broker);
    context.terminal.note(&format!(
        "data in {}; one node, for development and tests; Ctrl-C ends it",
        args.data_dir.display()
    ));
    while !context.interrupt.is_set() {
        std::thread::sleep(PAUSE);
    }
    broker.stop()?;
    Ok(Finished::well(Summary::Nothing))
}

/// Writes the addresses to stdout, for people and scripts; one who closes it does not want them.
fn announce(broker: &Broker) {
    let mut out = anstream::stdout().lock();
    let registry = broker.registry_url().unwrap_or_default();
    drop(
        writeln!(out, "kafka    {}\nregistry {registry}", broker.address())
            .and_then(|()| out.flush()),
    );
}
