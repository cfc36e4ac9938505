//! How far the kernel's wall clock can be wrong: `adjtimex(2)`, read only.
//!
//! The one place of the product with unsafe code, and nothing else is in it. No safe crate offers this call on all
//! of our boards (docs/decisions/0005-dependencies.md says which were looked at).

use std::{io, time::Duration};

/// The kernel's estimate of the largest error of its wall clock. It grows by 500 ppm without a time source, and ends
/// at 16 s: that is what a clock has that nobody disciplines, or that somebody has set by hand.
///
/// # Errors
///
/// What the system says where the call is not allowed (a container's filter).
pub fn max_error() -> io::Result<Duration> {
    // SAFETY: `timex` holds integers only, so zeros are a valid value of it; `modes` 0 asks and changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `timex` that nobody else uses, and the kernel keeps it no longer than the call.
    if unsafe { libc::adjtimex(&raw mut timex) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::from_micros(u64::try_from(timex.maxerror).unwrap_or(u64::MAX)))
}
