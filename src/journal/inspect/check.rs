//! `fsck`: every frame is verified, and what does not verify is located, with what it costs.
//!
//! Torn is not damaged: what a crash or a power cut leaves at the newest end was promised to nobody. It is remarked.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::Arc};

use crate::event::{Event, Sequence};

use super::{
    super::{
        Error,
        frame::{Kind, Told},
        recovery::{Spare, at},
        segment::{FRAMES, LENGTH, Segment, SegmentHeader, Step, TRAILER},
        snapshot::{self, Slot},
        storage::{Storage, looking::Looking, read_around},
    },
    Inspection, Kept, Seen,
};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Every file that counts, as it was found.
    pub files: Vec<Checked>,
    /// Frames that verify.
    pub frames: u64,
    /// Events among them.
    pub events: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A file that was checked, or that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The file, under the journal's directory.
    pub file: String,
    /// What it holds, for people.
    pub holds: String,
    /// What is damaged.
    pub faults: Vec<Fault>,
    /// What is worth knowing and no damage.
    pub remarks: Vec<String>,
}

/// Damage in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where; none: all of it.
    pub bytes: Option<(usize, usize)>,
    /// What is wrong with it, and what that costs.
    pub what: String,
    /// The events that are lost by it.
    pub lost: Option<(u64, u64)>,
    /// Whether `StorageDamaged` has told it.
    pub told: bool,
}

impl Check {
    /// How many places are damaged.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.files.iter().map(|file| file.faults.len()).sum()
    }

    /// How many of them nobody has told of yet.
    #[must_use]
    pub fn untold(&self) -> usize {
        let faults = self.files.iter().flat_map(|file| &file.faults);
        faults.filter(|fault| !fault.told).count()
    }
}

fn fault(what: impl Into<String>) -> Fault {
    Fault {
        bytes: None,
        what: what.into(),
        lost: None,
        told: false,
    }
}

impl Inspection {
    /// Verifies everything.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk cannot be read.
    pub fn check(&self) -> Result<Check, Error> {
        let mut check = Check::default();
        let images = self.epochs.iter().filter_map(|kept| kept.image.as_ref());
        let told: Vec<Told> = images.flat_map(|image| &image.told).copied().collect();
        for kept in &self.epochs {
            kept.check_identity(&mut check);
            self.check_slots(kept, &mut check)?;
            for segment in kept.segments() {
                self.check_segment(kept, segment, &told, &mut check)?;
            }
            kept.check_missing(&told, &mut check);
            kept.check_spares(&mut check)?;
        }
        for (name, _) in &self.beside {
            self.remark_of(name, &mut check)?;
        }
        Ok(check)
    }

    fn check_slots(&self, kept: &Kept, check: &mut Check) -> Result<(), Error> {
        let Some(image) = &kept.image else {
            return Ok(());
        };
        let slots = snapshot::look(&Looking, &kept.dir).map_err(at("read the snapshots of", &kept.dir))?;
        // Their places are no segments': what recovery says of them, it says of both together.
        let is_damaged = image.damages.iter().any(|damage| damage.file.contains(".snap"));
        let other_is_good = slots.iter().any(|(_, slot)| matches!(slot, Slot::Good(..)));
        for (name, slot) in slots {
            let mut checked = Checked {
                file: kept.file(name),
                ..Checked::default()
            };
            let lost = if other_is_good {
                "the other slot is used: nothing is lost"
            } else {
                "rule state and cursors older than the journal's events are lost"
            };
            match slot {
                Slot::Good(generation, segment) => {
                    checked.holds = format!("snapshot {generation}, replay from segment {segment}");
                }
                Slot::Never if !is_damaged => "not yet used".clone_into(&mut checked.holds),
                Slot::Bad if self.in_use.is_some() => {
                    checked.remarks.push("being written just now".to_owned());
                }
                Slot::Bad if !is_damaged => {
                    let torn = "torn by a crash while it was written; the other slot is used";
                    checked.remarks.push(torn.to_owned());
                }
                Slot::Missing => checked.faults.push(fault(format!("the file is missing; {lost}"))),
                Slot::Bad => checked.faults.push(fault(format!("does not verify; {lost}"))),
                Slot::Never => checked.faults.push(fault(format!("is empty; {lost}"))),
            }
            check.files.push(checked);
        }
        Ok(())
    }

    fn check_segment(
        &self,
        kept: &Kept,
        segment: &Arc<Segment>,
        told: &[Told],
        check: &mut Check,
    ) -> Result<(), Error> {
        let (number, newest) = (segment.header.number, kept.segments().last());
        let is_newest = newest.is_some_and(|newest| newest.header.number == number);
        let mut checked = Checked {
            file: kept.path_of(segment),
            holds: match (segment.header.after_sequence.0 + 1, segment.filled().2.0) {
                (from, to) if from <= to => format!("events {from} to {to}"),
                _ => "no event".to_owned(),
            },
            ..Checked::default()
        };
        for what in self.bad_copies(kept, segment)? {
            if is_newest && !kept.is_closed() {
                checked.remarks.push(what);
            } else {
                checked.faults.push(fault(what));
            }
        }
        let mut last = segment.header.after_sequence;
        let mut later = 0;
        kept.walk(segment, |seen| {
            match seen {
                Seen::Bad(bad) => {
                    checked.faults.push(Fault {
                        bytes: Some((bad.from, bad.to)),
                        what: "do not verify".to_owned(),
                        lost: bad.lost,
                        told: told.contains(&Told(kept.epoch.0, number, bad.from as u64)),
                    });
                    last = bad.lost.map_or(last, |(_, to)| Sequence(to));
                }
                Seen::Frame(offset, header, payload) => {
                    let is_event = header.kind == Kind::EVENT;
                    let due = last.0 + u64::from(is_event);
                    if header.sequence.0 != due && header.kind != Kind::SKIPPED {
                        checked.faults.push(Fault {
                            bytes: Some((offset, offset + header.whole())),
                            ..fault(format!(
                                "has the number {} and should have {due}",
                                header.sequence.0
                            ))
                        });
                    }
                    last = header.sequence;
                    later += u64::from(is_event && Event::decode(payload).is_none());
                    check.frames += 1;
                    check.events += u64::from(is_event);
                    check.bytes += header.whole() as u64;
                }
            }
            ControlFlow::Continue(())
        })?;
        if later > 0 {
            checked.remarks.push(format!(
                "{later} events verify but cannot be read: a later version wrote them"
            ));
        }
        let tail = kept.image.as_ref().and_then(|image| image.tail.as_ref());
        if let Some((_, cut)) = tail.filter(|(file, _)| is_newest && *file == segment.name)
            && self.in_use.is_none()
        {
            checked.remarks.push(format!(
                "the tail is torn at byte {cut}, by a kill or a power cut while it was written: nothing there was \
                 acknowledged, and the next start cuts it off"
            ));
        }
        check.files.push(checked);
        Ok(())
    }

    /// A segment's header stands at both its ends.
    fn bad_copies(&self, kept: &Kept, segment: &Segment) -> Result<Vec<String>, Error> {
        if self.in_use.is_some() {
            // It may be another one's by now; one good copy was found.
            return Ok(Vec::new());
        }
        let path = kept.dir.join(&segment.name);
        let file = Looking.open(&path).map_err(at("open", &path))?;
        let mut bad = Vec::new();
        let copies = [
            (0, "its beginning"),
            (segment.size - TRAILER.min(segment.size), "its end"),
        ];
        for (offset, place) in copies.into_iter().take(if segment.is_cut() { 1 } else { 2 }) {
            let mut bytes = [0; LENGTH];
            read_around(&*file, &mut bytes, offset as u64).map_err(at("read", &path))?;
            let number = SegmentHeader::decode(&bytes).map(|header| header.number);
            if number != Some(segment.header.number) {
                bad.push(format!(
                    "the header at {place} (byte {offset}) does not verify; its copy is used: nothing is lost"
                ));
            }
        }
        Ok(bad)
    }

    /// What an earlier start put aside.
    fn remark_of(&self, name: &str, check: &mut Check) -> Result<(), Error> {
        let mut checked = Checked {
            file: name.to_owned(),
            ..Checked::default()
        };
        if name == "unreadable" {
            checked.remarks.push(format!(
                "what an earlier start could not read: tidegate journal fsck --dir {}",
                self.dir.join(name).display()
            ));
        } else if name.starts_with("damaged-") {
            let path = self.dir.join(name);
            checked.remarks = examine(name, &path)?;
        } else {
            return Ok(());
        }
        check.files.push(checked);
        Ok(())
    }
}

/// The copy of a segment that was found damaged: told already, and no part of the journal any more.
fn examine(name: &str, path: &Path) -> Result<Vec<String>, Error> {
    let about = "a copy of the first file that was found damaged; the gateway has told it (StorageDamaged)";
    let mut remarks = vec![about.to_owned()];
    let file = Looking.open(path).map_err(at("open", path))?;
    let size = usize::try_from(file.size().map_err(at("measure", path))?).unwrap_or(0);
    let Some(header) = SegmentHeader::read(&*file, size).map_err(at("read", path))? else {
        return Ok(remarks);
    };
    let segment = Segment::new(name.to_owned(), file, size, header, FRAMES);
    let mut walk = segment.walk(FRAMES, segment.limit());
    let mut last = super::before(&header);
    loop {
        match walk.next().map_err(at("read", path))? {
            Step::Frame(_, header) => last = header,
            Step::End => break,
            Step::Bad(bad) => {
                // Without a good frame behind it this is where the frames end.
                let survivors = walk.survivors(bad, &last).map_err(at("read", path))?;
                let Some((to, _)) = survivors.good.first() else {
                    break;
                };
                remarks.push(format!("bytes {bad} to {to} do not verify"));
                walk.go_to(*to);
            }
        }
    }
    Ok(remarks)
}

impl Kept {
    fn file(&self, name: &str) -> String {
        Path::new(&self.name).join(name).to_string_lossy().into_owned()
    }

    fn check_identity(&self, check: &mut Check) {
        let mut checked = Checked {
            file: self.file(super::identity::NAME),
            ..Checked::default()
        };
        match &self.owner {
            Some(owner) => checked.holds = format!("epoch {} of gateway {}", self.epoch, owner.gateway),
            None => checked.faults.push(fault(
                "does not verify: the next start moves the directory aside (unreadable) and begins a new epoch; \
                 `tidegate journal export` still reads its events",
            )),
        }
        if let Some(why) = &self.unreadable {
            checked.faults.push(fault(why.clone()));
        }
        check.files.push(checked);
    }

    /// What recovery misses and no walk comes upon.
    fn check_missing(&self, told: &[Told], check: &mut Check) {
        let Some(image) = &self.image else { return };
        let mut missing = BTreeMap::<String, Checked>::new();
        for damage in &image.damages {
            let file = self.file(&damage.file);
            let known = |checked: &Checked| {
                let bytes = checked.faults.iter().filter_map(|fault| fault.bytes);
                checked.file == file && bytes.clone().any(|(from, _)| from == damage.from)
            };
            if damage.file.contains(".snap") || check.files.iter().any(known) {
                continue;
            }
            let is_told = |(segment, from)| told.contains(&Told(self.epoch.0, segment, from));
            let is_missing = damage.to <= damage.from;
            let fault = Fault {
                bytes: (!is_missing).then_some((damage.from, damage.to)),
                what: if is_missing { "missing" } else { "cut off" }.to_owned(),
                lost: damage.lost,
                told: damage.place.is_some_and(is_told),
            };
            if let Some(there) = check.files.iter_mut().find(|checked| checked.file == file) {
                there.faults.push(fault);
            } else {
                let checked = missing.entry(file.clone()).or_default();
                checked.file = file;
                checked.faults.push(fault);
            }
        }
        check.files.extend(missing.into_values());
    }

    /// A file that should hold a segment's header and does not may be one that is missing.
    fn check_spares(&self, check: &mut Check) -> Result<(), Error> {
        let spares: &[Spare] = self.image.as_ref().map_or(&[], |image| &image.spares);
        for spare in spares {
            let path = self.dir.join(&spare.name);
            let mut bytes = [0; LENGTH];
            read_around(&*spare.file, &mut bytes, 0).map_err(at("read", &path))?;
            let header = SegmentHeader::read(&*spare.file, spare.size).map_err(at("read", &path))?;
            if header.is_none() && bytes.iter().any(|byte| *byte != 0) {
                let told = "no header in it verifies, so it counts as empty; was a segment missed, it may be this one";
                check.files.push(Checked {
                    file: self.file(&spare.name),
                    remarks: vec![told.to_owned()],
                    ..Checked::default()
                });
            }
        }
        Ok(())
    }
}
