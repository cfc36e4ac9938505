//! What the kernel counts of a process.

use std::{fs, time::Duration};

/// Processor time of all threads so far: /proc/PID/stat, in ticks of 10 ms.
///
/// # Panics
///
/// If there is no such process.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server lives");
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("a stat line");
    let field = |index: usize| -> u64 {
        fields
            .split(' ')
            .nth(index)
            .and_then(|text| text.parse().ok())
            .expect("a number")
    };
    let ticks = field(11) + field(12);
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The same from the scheduler, in nanoseconds: for what hardly does anything. Threads that ended are not in it.
///
/// # Panics
///
/// If there is no such process.
#[must_use]
pub fn scheduled(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server lives");
    let nanos = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Resident memory, in MiB.
///
/// # Panics
///
/// If there is no such process.
#[must_use]
pub fn rss(pid: u32) -> f64 {
    field(&format!("/proc/{pid}/status"), "VmRSS:") / 1024.0
}

/// A number from a file of `Name: number` lines.
///
/// # Panics
///
/// If the file or the line is not there.
#[must_use]
pub fn field(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{path} has no {name}"))
}
