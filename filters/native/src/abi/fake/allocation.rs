//! Counts the bytes that a thread allocates, so that tests can detect leaks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

/// The bytes that this thread has allocated and not freed; memory freed by another thread counts there.
pub(crate) fn allocated() -> isize {
    ALLOCATED.get()
}

fn note(bytes: isize) {
    // The counter no longer exists while a thread ends.
    let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get().wrapping_add(bytes)));
}

// SAFETY: every call is passed to the system allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(-layout.size().cast_signed());
        unsafe { System.dealloc(memory, layout) }
    }
}
