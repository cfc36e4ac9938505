//! What the comparisons share: servers as child processes, what the kernel says of them, a light load
//! generator, medians. Nothing here knows how Tidegate works inside.

pub mod client;
pub mod disk;
pub mod driven;
pub mod load;
pub mod process;
pub mod server;
pub mod store;

use std::fmt::Write;

/// The middle of an odd number of values, the mean of the two middle ones of an even number.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// Smallest and largest.
#[must_use]
pub fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

/// The machine and the day, as one line for a table's head.
#[must_use]
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split_once(": ")
                .map(|(_, name)| name.to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let day = std::process::Command::new("date").arg("-I").output();
    let day = day.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let kernel = read("/proc/sys/kernel/osrelease");
    let mut line = String::new();
    _ = write!(
        line,
        "{}, {cpu}, {cores} cores, Linux {}, load average before: {}",
        day.unwrap_or_default(),
        kernel.trim(),
        read("/proc/loadavg").split_whitespace().next().unwrap_or("?"),
    );
    line
}

/// A flag's value, or the default. `--rounds 5`.
///
/// # Panics
///
/// If the value is not of the kind: it is a person's mistake, and the message says which.
pub fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut arguments = std::env::args();
    if !arguments.any(|argument| argument == name) {
        return default;
    }
    let value = arguments.next().unwrap_or_default();
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} {value:?}: not understood"))
}
