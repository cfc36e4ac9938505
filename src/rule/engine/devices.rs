//! The devices, by number and by name.

use std::{
    hash::{BuildHasher, RandomState},
    ops::{Index, IndexMut},
};

use hashbrown::HashTable;

use super::{table::Table, watch::Device};
use crate::reading::DeviceId;

/// Every device that is known, each name once. A name finds its number without being kept a second time.
#[derive(Debug, Default)]
pub(super) struct Devices {
    rows: Table<Device>,
    numbers: HashTable<u32>,
    /// With a secret: names come from outside.
    hasher: RandomState,
}

impl Devices {
    pub(super) fn find(&self, name: &DeviceId) -> Option<u32> {
        let is_it = |number: &u32| self.rows[*number].about.device == *name;
        self.numbers.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// Adds a device that is not there yet.
    pub(super) fn push(&mut self, device: Device) -> u32 {
        let hash = self.hasher.hash_one(&device.about.device);
        let number = self.rows.push(device);
        let (rows, hasher) = (&self.rows, &self.hasher);
        let hash_of = |number: &u32| hasher.hash_one(&rows[*number].about.device);
        self.numbers.insert_unique(hash, number, hash_of);
        number
    }

    pub(super) fn len(&self) -> u32 {
        self.rows.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Device> {
        self.rows.iter()
    }
}

impl Index<u32> for Devices {
    type Output = Device;
    fn index(&self, number: u32) -> &Device {
        &self.rows[number]
    }
}

impl IndexMut<u32> for Devices {
    fn index_mut(&mut self, number: u32) -> &mut Device {
        &mut self.rows[number]
    }
}
