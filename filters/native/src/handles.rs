//! Ids for the filters of one worker thread. Envoy stores such an id where its ABI has a pointer, and passes it to each
//! hook. An id whose filter no longer exists, or never did, finds nothing, whereas a pointer would be dereferenced.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;

/// The filters of one thread.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    slots: Vec<HandleSlot<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct HandleSlot<T> {
    /// How many filters had this slot before.
    generation: usize,
    value: Option<Rc<T>>,
}

/// The number of the current thread, in order of first use.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl<T> Handles<T> {
    pub(crate) const fn new() -> Self {
        Handles { slots: Vec::new(), free: Vec::new() }
    }

    /// The id of a new `value`, never 0; `None` when there are too many.
    pub(crate) fn insert(&mut self, value: Rc<T>) -> Option<usize> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < (1 << INDEX_BITS) - 1 => {
                self.slots.push(HandleSlot { generation: 0, value: None });
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = self.slots.get_mut(index)?;
        slot.value = Some(value);
        let generation = slot.generation & ((1 << GENERATION_BITS) - 1);
        Some((thread_number() << (INDEX_BITS + GENERATION_BITS)) | (generation << INDEX_BITS) | (index + 1))
    }

    fn place(&self, handle: usize) -> Option<usize> {
        let index = (handle & ((1 << INDEX_BITS) - 1)).checked_sub(1)?;
        let generation = (handle >> INDEX_BITS) & ((1 << GENERATION_BITS) - 1);
        let thread = handle >> (INDEX_BITS + GENERATION_BITS);
        let slot = self.slots.get(index)?;
        let is_current = slot.generation & ((1 << GENERATION_BITS) - 1) == generation;
        (is_current && thread == thread_number()).then_some(index)
    }

    /// The value with this id.
    pub(crate) fn get(&self, handle: usize) -> Option<Rc<T>> {
        self.slots.get(self.place(handle)?)?.value.clone()
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, handle: usize) -> Option<Rc<T>> {
        let index = self.place(handle)?;
        let slot = self.slots.get_mut(index)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_its_own_value_until_it_is_taken_back() {
        let mut handles = Handles::new();
        let first = handles.insert(Rc::new("first")).unwrap();
        let second = handles.insert(Rc::new("second")).unwrap();
        assert_eq!((handles.get(first).as_deref(), handles.get(second).as_deref()), (Some(&"first"), Some(&"second")));
        assert_eq!(handles.remove(first).as_deref(), Some(&"first"));
        assert_eq!((handles.get(first), handles.remove(first)), (None, None));
        // The slot is reused with a different id.
        let third = handles.insert(Rc::new("third")).unwrap();
        assert_eq!((third == first, handles.get(first)), (false, None));
        assert_eq!(handles.get(third).as_deref(), Some(&"third"));
    }

    #[test]
    fn any_other_number_finds_nothing() {
        let mut handles = Handles::new();
        let handle = handles.insert(Rc::new(1)).unwrap();
        for wrong in [0, usize::MAX, handle + 1, handle | 1 << 47, handle ^ 1 << 60] {
            assert_eq!(handles.get(wrong), None, "{wrong:x}");
        }
    }

    #[test]
    fn a_number_of_another_thread_finds_nothing() {
        let mut handles = Handles::new();
        let handle = handles.insert(Rc::new(1)).unwrap();
        std::thread::spawn(move || {
            let mut others = Handles::new();
            assert_ne!(others.insert(Rc::new(2)), Some(handle));
            assert_eq!(others.get(handle), None);
        })
        .join()
        .unwrap();
    }
}
