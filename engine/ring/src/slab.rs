//! A table with stable indexes.

use crate::chunked::Chunked;

/// Values under numbers that stay theirs until they are removed.
pub(crate) struct Slab<T> {
    slots: Chunked<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Chunked::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(value);
            return index;
        }
        self.slots.push(Some(value));
        (self.slots.len() - 1) as u32
    }

    /// What there is, with its index.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| Some((index as u32, slot.as_mut()?)))
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let gone = self.slots[index as usize].take();
        debug_assert!(gone.is_some(), "a slot was freed twice");
        self.free.push(index);
        gone
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &T {
        self.slots[index as usize].as_ref().expect("an index lives as long as its handle or its operations")
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        self.slots[index as usize].as_mut().expect("an index lives as long as its handle or its operations")
    }

    pub(crate) fn try_get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize).and_then(Option::as_ref)
    }
}
