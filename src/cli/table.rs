//! Rows whose columns line up, for people.

use std::io::{self, Write};

/// Writes rows, each column as wide as its widest cell.
pub(super) fn write<const COLUMNS: usize>(
    rows: &[[String; COLUMNS]],
    indent: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells.map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{indent}{}", padded.join("  ").trim_end())?;
    }
    Ok(())
}

/// `512 B`, `4.0 KiB`, `34.1 MiB`.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 1024;
    for name in ["KiB", "MiB", "GiB"] {
        if bytes < unit * 1024 || name == "GiB" {
            return format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit);
        }
        unit *= 1024;
    }
    unreachable!("the last unit takes all")
}

/// `12s`, `3m 4s`, `2h 5m`, `3d 4h`: the two largest units.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, left) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{left}s"),
        (0, 0, _) => format!("{minutes}m {left}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_the_unit_that_a_person_would_take() {
        let sizes = [0, 1023, 1024, 1536, 4 << 20, (1 << 40) + 1].map(size);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "4.0 MiB", "1024.0 GiB"]
        );
        let ages = [0, 59, 60, 3_661, 90_000].map(age);
        assert_eq!(ages, ["0s", "59s", "1m 0s", "1h 1m", "1d 1h"]);
    }
}
