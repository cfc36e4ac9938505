//! The clock: whether somebody vouches for it, and which boot this is.

use super::{super::table::age, Finding};
use crate::time::{Clock, ClockQuality, Moment};

pub(super) fn look() -> Vec<Finding> {
    vec![judge(Clock::system().moment())]
}

fn judge(moment: Moment) -> Finding {
    let up = age(u64::try_from(moment.boot.0 / 1_000_000).unwrap_or(0));
    let boot = format!("boot {:032x} began {up} ago", moment.boot_id.0);
    match moment.quality {
        ClockQuality::Synchronised => Finding::ok("clock", format!("{}, synchronised; {boot}", moment.wall)),
        ClockQuality::Corrected | ClockQuality::Unknown => Finding::warning(
            "clock",
            format!("nobody vouches for it: {} is an estimate; {boot}", moment.wall),
            "timedatectl, or chronyc tracking: does the time daemon run, does it reach a server? Alarms come all the \
             same, TLS may not, and times are corrected when it is right",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::Severity,
        time::{BootId, EngineTime, Timestamp},
    };

    #[test]
    fn a_clock_that_nobody_vouches_for_is_to_be_looked_at() {
        let moment = |quality| Moment {
            boot_id: BootId(7),
            boot: EngineTime(3_661_000_000),
            wall: Timestamp(1_795_255_230_000_000),
            quality,
        };
        let right = judge(moment(ClockQuality::Synchronised));
        assert_eq!(right.severity, Severity::Ok);
        assert!(right.found.ends_with("began 1h 1m ago"), "{}", right.found);
        let unknown = judge(moment(ClockQuality::Unknown));
        assert_eq!(unknown.severity, Severity::Warning);
        assert!(unknown.remedy.is_some());
    }
}
