//! Rows by number: half the size of a pointer, and a number stays what it is.

use std::ops::{Index, IndexMut};

/// Rows that are only ever added. A number of one of its rows always finds it.
#[derive(Debug)]
pub(super) struct Table<T>(Vec<T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    /// Adds a row and numbers it.
    pub(super) fn push(&mut self, row: T) -> u32 {
        let number = u32::try_from(self.0.len()).expect("four thousand million rows do not fit any gateway");
        self.0.push(row);
        number
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).expect("as `push` has checked")
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T> Index<u32> for Table<T> {
    type Output = T;
    fn index(&self, number: u32) -> &T {
        self.0
            .get(number as usize)
            .expect("numbers come from `push` and rows stay")
    }
}

impl<T> IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.0
            .get_mut(number as usize)
            .expect("numbers come from `push` and rows stay")
    }
}
