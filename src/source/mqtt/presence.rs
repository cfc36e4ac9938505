//! Which devices have a connection. Bounded by the connections that there may be.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::reading::DeviceId;

/// How many connections each device has.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<Mutex<HashMap<DeviceId, usize>>>);

impl Presence {
    /// The device has one more, until what is returned is dropped.
    pub(crate) fn enter(&self, device: DeviceId) -> Here {
        *self.all().entry(device.clone()).or_default() += 1;
        Here {
            presence: self.clone(),
            device,
        }
    }

    /// Those that have one.
    #[must_use]
    pub fn present(&self) -> HashSet<DeviceId> {
        self.all().keys().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<DeviceId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of a device.
#[derive(Debug)]
pub(crate) struct Here {
    presence: Presence,
    device: DeviceId,
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut all = self.presence.all();
        if let Some(connections) = all.get_mut(&self.device) {
            *connections -= 1;
            if *connections == 0 {
                all.remove(&self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_there_as_long_as_one_of_its_connections() {
        let presence = Presence::default();
        let boiler = DeviceId::new("boiler").unwrap();
        let (one, other) = (presence.enter(boiler.clone()), presence.enter(boiler.clone()));
        drop(one);
        assert_eq!(presence.present(), [boiler].into());
        drop(other);
        assert!(presence.present().is_empty());
    }
}
