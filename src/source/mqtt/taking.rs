//! From a publish to its readings.

use std::sync::{Arc, PoisonError};

use super::{
    Settings, Shared, count,
    topics::{self, Match},
    troubles::Trouble,
};
use crate::{
    hub::Message,
    reading::{DeviceId, Reading},
    source::{Delivery, Ticket},
    time::EngineTime,
};

impl Shared {
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The readings of a publish, stamped; none: its payload is not what its table says.
    pub(super) fn readings(
        &self,
        user: Option<&str>,
        message: &Message,
        arrived: EngineTime,
    ) -> Option<Vec<Reading>> {
        let settings = self.settings();
        let Some(found) = topics::find(&settings.readings, &message.topic) else {
            // It was held, and meanwhile its table was taken away.
            return Some(Vec::new());
        };
        let readings = self.decoded(&settings, &found, user, message, arrived);
        if let Err(trouble) = &readings {
            count(&self.counters.undecodable);
            let name = found.device.or(user);
            let device = name.and_then(|name| topics::device(&settings, name));
            let device = device.as_ref().map(DeviceId::as_str);
            self.troubles.arose(device, &message.topic, trouble);
        }
        readings.ok()
    }

    fn decoded(
        &self,
        settings: &Settings,
        found: &Match<'_>,
        user: Option<&str>,
        message: &Message,
        arrived: EngineTime,
    ) -> Result<Vec<Reading>, Trouble> {
        let decoder = &found.table.decoder;
        let decoded = decoder.decode(&message.payload).map_err(Trouble::Undecodable)?;
        let own = decoded.time;
        let stamp = self.stamps.stamp_arrived(own, arrived);
        let (readings, rejected) =
            topics::readings(settings, found, user, decoded, stamp).ok_or(Trouble::Nameless)?;
        let rejected = u64::try_from(rejected).unwrap_or(u64::MAX);
        self.counters
            .rejected_values
            .fetch_add(rejected, std::sync::atomic::Ordering::Relaxed);
        let untimed = match own {
            // The device's own time counts; or it tells none and nobody expects it to.
            Some(_) if stamp.1 => None,
            None => decoder.time.is_some().then_some(Trouble::NoTime),
            Some(own) => self.stamps.off_by(own).map(Trouble::OffTime),
        };
        if let (Some(trouble), Some(reading)) = (untimed, readings.first()) {
            count(&self.counters.untimed);
            self.troubles
                .arose(Some(reading.device.as_str()), &message.topic, &trouble);
        }
        Ok(readings)
    }

    /// A will is a publish that nobody waits for: evaluated if there is room, and handed to subscribers.
    pub(super) fn publish_will(&self, user: Option<&str>, message: Message) {
        count(&self.counters.wills);
        if topics::find(&self.settings().readings, &message.topic).is_some() {
            let taken = !self.health.borrow().parked
                && self.intake.try_reserve().is_ok_and(|permit| {
                    let readings = self.readings(user, &message, self.stamps.arrived());
                    let readings = readings.unwrap_or_default();
                    permit.send(Delivery {
                        readings,
                        ticket: Ticket::unclaimed(),
                    });
                    true
                });
            if !taken {
                count(&self.counters.wills_not_evaluated);
            }
        }
        self.hub.publish(message, None);
    }
}
