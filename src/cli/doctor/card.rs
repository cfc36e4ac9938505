//! The card or disk under that filesystem: what it says of its own health. eMMC does (JEDEC 5.0), SD cards do not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    super::table::size,
    Finding,
    disk::{Mount, mount_of, nearest},
};

const CHECK: &str = "card";

/// What a disk shows in sysfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Disk {
    /// `mmcblk0`.
    name: String,
    bytes: u64,
    /// `SD`, `MMC`; empty: neither.
    kind: String,
    model: String,
    /// The worse of eMMC's two kinds of cells: in tenths of its life, 11 beyond it; 0: not told.
    life: u8,
    /// 1 normal, 2 80 % of the spare blocks are used, 3 90 %; 0: not told.
    spares: u8,
}

pub(super) fn look(dir: &Path) -> Vec<Finding> {
    let disk = mount_of(&nearest(dir)).and_then(|mount| disk_of(Path::new("/sys"), &mount));
    vec![disk.map_or_else(
        || Finding::note(CHECK, "what the journal's filesystem is on does not show here"),
        |disk| judge(&disk),
    )]
}

fn disk_of(sys: &Path, mount: &Mount) -> Option<Disk> {
    let (major, minor) = mount.device;
    let by_number = sys.join(format!("dev/block/{major}:{minor}"));
    // btrfs and overlays have numbers of their own.
    let by_name = || {
        Some(
            sys.join("class/block")
                .join(Path::new(&mount.source).file_name()?),
        )
    };
    let found = fs::canonicalize(by_number).ok();
    let found = found.or_else(|| fs::canonicalize(by_name()?).ok())?;
    // A partition lies under its disk, which has a device.
    let disk: PathBuf = found
        .ancestors()
        .find(|place| place.join("device").exists())?
        .to_owned();
    let text = |name: &str| -> String {
        let text = fs::read_to_string(disk.join(name)).unwrap_or_default();
        text.trim().to_owned()
    };
    let hex = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0);
    let sectors: u64 = text("size").parse().unwrap_or(0);
    let model = Some(text("device/name")).filter(|name| !name.is_empty());
    Some(Disk {
        name: disk.file_name()?.to_string_lossy().into_owned(),
        bytes: sectors.saturating_mul(512),
        kind: text("device/type"),
        model: model.unwrap_or_else(|| text("device/model")),
        life: text("device/life_time")
            .split_whitespace()
            .map(hex)
            .max()
            .unwrap_or(0),
        spares: hex(&text("device/pre_eol_info")),
    })
}

fn judge(disk: &Disk) -> Finding {
    let Disk {
        name,
        model,
        life,
        spares,
        ..
    } = disk;
    let what = match disk.kind.as_str() {
        "SD" => "SD card",
        "MMC" => "eMMC",
        _ => "disk",
    };
    let what = format!("{what} {name} ({}{})", model_and_comma(model), size(disk.bytes));
    let replace = "copy the journal's directory and replace it; `tidegate plan` says what wears it";
    if *life >= 11 || *spares >= 3 {
        return Finding::failure(
            CHECK,
            format!("{what} is at the end of its life by its own word"),
            replace,
        );
    }
    let used = match life {
        0 => String::new(),
        life => format!("{} to {} % of its life is used", (life - 1) * 10, life * 10),
    };
    if *life >= 9 || *spares == 2 {
        let spare = if *spares == 2 {
            "; 80 % of its spare blocks are used"
        } else {
            ""
        };
        let said = format!("{what} wears out: {used}{spare}");
        return Finding::warning(CHECK, said, replace);
    }
    match (life, disk.kind.as_str()) {
        (0, "SD") => Finding::note(
            CHECK,
            format!("{what}: SD cards tell nothing of their health; `tidegate plan` estimates it"),
        ),
        (0, _) => Finding::note(
            CHECK,
            format!("{what} tells nothing of its health here; smartctl may know more"),
        ),
        _ => Finding::ok(CHECK, format!("{what}: {used}")),
    }
}

fn model_and_comma(model: &str) -> String {
    if model.is_empty() {
        String::new()
    } else {
        format!("{model}, ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    /// A board's sysfs, as far as it is looked at.
    fn board(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let disk = sys.path().join("devices/platform/mmc0/mmc0:0001/block/mmcblk0");
        fs::create_dir_all(disk.join("mmcblk0p2")).unwrap();
        fs::create_dir_all(disk.join("device")).unwrap();
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        std::os::unix::fs::symlink(disk.join("mmcblk0p2"), sys.path().join("dev/block/179:2")).unwrap();
        fs::write(disk.join("size"), "62333952\n").unwrap();
        for (name, text) in files {
            fs::write(disk.join("device").join(name), format!("{text}\n")).unwrap();
        }
        sys
    }

    fn found(files: &[(&str, &str)]) -> Finding {
        let mount = Mount {
            device: (179, 2),
            point: "/".to_owned(),
            options: "rw".to_owned(),
            kind: "ext4".to_owned(),
            source: "/dev/mmcblk0p2".to_owned(),
        };
        judge(&disk_of(board(files).path(), &mount).expect("a disk"))
    }

    #[test]
    fn an_emmc_tells_its_life_and_its_end() {
        let emmc = |life: &str, spares: &str| {
            found(&[
                ("type", "MMC"),
                ("name", "BJTD4R"),
                ("life_time", life),
                ("pre_eol_info", spares),
            ])
        };
        let good = emmc("0x02 0x01", "0x01");
        assert_eq!(good.severity, Severity::Ok);
        assert_eq!(
            good.found,
            "eMMC mmcblk0 (BJTD4R, 29.7 GiB): 10 to 20 % of its life is used"
        );
        assert_eq!(emmc("0x01 0x09", "0x01").severity, Severity::Warning);
        assert_eq!(emmc("0x01 0x01", "0x02").severity, Severity::Warning);
        assert_eq!(emmc("0x0b 0x01", "0x01").severity, Severity::Failure);
        assert_eq!(emmc("0x01 0x01", "0x03").severity, Severity::Failure);
    }

    #[test]
    fn an_sd_card_is_said_to_tell_nothing() {
        let card = found(&[("type", "SD"), ("name", "SC32G")]);
        assert_eq!(card.severity, Severity::Note);
        assert!(
            card.found.starts_with("SD card mmcblk0 (SC32G, 29.7 GiB)"),
            "{}",
            card.found
        );
    }
}
