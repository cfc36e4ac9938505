//! What the scenarios need of a board, whether it lies on a bench or is emulated.

use std::{path::Path, time::Duration};

use super::{bench::Bench, emulated::Emulated};

/// Which boards the scenarios run on: `virtual`, or the path of a `bench.toml`.
const WHICH: &str = "TIDEGATE_HIL";

/// What the hardware clock says at power on. Boards on a bench have none and ignore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HardwareClock {
    Right,
    /// As where there is no battery, or none left.
    In1970,
}

/// What a command on the board said, both outputs together, and its exit code.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) text: String,
}

/// The acts. They block: a test does one of them at a time.
pub(crate) trait Board: Send {
    /// Makes it new, without power: the configuration lies on its boot partition, as an installer leaves it there, and
    /// nothing is there from before: no journal, no state.
    fn renew(&mut self, configuration: &str);

    /// Gives it power; returns when commands can be run.
    fn power_on(&mut self, clock: HardwareClock);

    /// Gives it power and takes it away again after so long, however far it has come. What the cut said.
    fn flicker(&mut self, time: Duration) -> String;

    /// Takes the power away, whatever it is doing. What it said of that.
    fn cut_power(&mut self) -> String;

    /// Plugs the serial adapter in.
    fn plug_in(&mut self);

    /// Pulls the serial adapter out.
    fn unplug(&mut self);

    /// Puts bytes on the line that the adapter hears. Nobody hears them while it is unplugged.
    fn say(&mut self, bytes: &[u8]);

    /// Cuts the way to the broker, and no other.
    fn cut_uplink(&mut self);

    /// Mends it.
    fn mend_uplink(&mut self);

    /// Runs a command of the shell as root, with this as its input.
    fn run(&mut self, command: &str, input: &[u8]) -> Output;

    /// Where it is on the network.
    fn wiring(&self) -> Wiring;

    /// A package of a higher version than the one that is installed.
    fn later_package(&self) -> Vec<u8>;
}

/// What has to be known to build the gateway's configuration and to reach its door.
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    /// The gateway's MQTT door, from here.
    pub(crate) door: (String, u16),
    /// Where the broker has to listen here, and where the board finds it.
    pub(crate) broker_listens: (String, u16),
    pub(crate) broker: String,
    /// The serial adapter's name on the board.
    pub(crate) port: String,
}

/// The board that `TIDEGATE_HIL` names.
pub(crate) fn named() -> Box<dyn Board> {
    match std::env::var(WHICH).ok().as_deref() {
        Some("virtual") => Box::new(Emulated::new()),
        Some(file) => Box::new(Bench::read(Path::new(file))),
        None => panic!(
            "no board to run this on: set {WHICH}=virtual after hil/virtual/prepare.sh, or to the path of a bench.toml \
             (hil/README.md); nothing was tested"
        ),
    }
}
