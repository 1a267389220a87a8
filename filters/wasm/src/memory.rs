//! Memory that the proxy fills: it requests a buffer during a call, and returns the address of that buffer.
//!
//! The buffers never leave Rust's ownership. `proxy_on_memory_allocate` lends the proxy the address of a buffer that
//! stays here, and [`receive`] hands the same buffer to the caller: an address or a length that was never lent is an
//! error, not undefined behaviour. A received buffer comes back when it is dropped and serves the next call, so that
//! reading the headers of an ordinary request allocates nothing.

use std::cell::RefCell;
use std::ops::Deref;

use crate::abi::Status;

/// Enough for nearly every property, and for every value of the shared data that is read while a request is decided.
const SMALL: usize = 512;

/// Enough for the headers of most requests.
const LARGE: usize = 4 * 1024;

/// The largest buffer that is kept for the next call: Envoy's default limit of 60 KiB for headers, and some more. Larger
/// ones are freed.
const LARGEST_KEPT: usize = 64 * 1024;

thread_local! {
    static EXCHANGE: RefCell<Exchange> = const { RefCell::new(Exchange { small: Vec::new(), large: Vec::new(), lent: Vec::new() }) };
}

/// Every buffer is filled with zeros when it is allocated, so reading bytes that the host has not written is harmless.
struct Exchange {
    /// A spare buffer of [`SMALL`] bytes, because properties are read while the headers are in use.
    small: Vec<u8>,
    /// Another spare buffer, of any size.
    large: Vec<u8>,
    lent: Vec<Vec<u8>>,
}

impl Exchange {
    /// A spare buffer with at least this number of bytes.
    fn take_spare(&mut self, size: usize) -> Option<Vec<u8>> {
        let spare = if self.small.len() >= size { &mut self.small } else { &mut self.large };
        (spare.len() >= size).then(|| std::mem::take(spare))
    }

    /// Stores a buffer in an empty slot or instead of a smaller one; otherwise frees it.
    fn keep(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        let is_small = buffer.len() <= SMALL;
        if is_small && self.small.is_empty() {
            std::mem::swap(&mut self.small, &mut buffer);
        } else if self.large.len() < buffer.len() {
            std::mem::swap(&mut self.large, &mut buffer);
        }
        buffer
    }
}

/// Called by the host to get `size` bytes; returns null when there are none. Never traps.
pub fn allocate(size: usize) -> *mut u8 {
    EXCHANGE
        .with(|exchange| {
            let mut exchange = exchange.try_borrow_mut().ok()?;
            let mut buffer = match exchange.take_spare(size.max(1)) {
                Some(spare) => spare,
                None => zeroed(if size <= SMALL { SMALL } else { size.max(LARGE) })?,
            };
            let address = buffer.as_mut_ptr();
            exchange.lent.push(buffer);
            Some(address)
        })
        .unwrap_or(std::ptr::null_mut())
}

fn zeroed(size: usize) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(size).ok()?;
    buffer.resize(size, 0);
    Some(buffer)
}

/// Runs `call`, which passes the host two pointers for an address and a length, and takes the buffer that it returns.
pub(crate) fn receive(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<HostBuffer, Status> {
    // A buffer that remains from an earlier, failed call.
    EXCHANGE.with(|exchange| exchange.try_borrow_mut().map(|mut exchange| exchange.lent.clear()).ok());
    let (mut address, mut length) = (std::ptr::null_mut(), 0);
    Status::check(call(&raw mut address, &raw mut length))?;
    if length == 0 {
        return Ok(HostBuffer { bytes: Vec::new(), length: 0 });
    }
    EXCHANGE
        .with(|exchange| {
            let mut exchange = exchange.try_borrow_mut().ok()?;
            let at = exchange.lent.iter().position(|lent| lent.as_ptr() == address && length <= lent.len())?;
            Some(HostBuffer { bytes: exchange.lent.swap_remove(at), length })
        })
        .ok_or(Status::INVALID_MEMORY_ACCESS)
}

/// Bytes from the host.
#[derive(Debug)]
pub(crate) struct HostBuffer {
    bytes: Vec<u8>,
    length: usize,
}

impl Deref for HostBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if self.bytes.len() > LARGEST_KEPT {
            return;
        }
        let _ = EXCHANGE.try_with(|exchange| {
            if let Ok(mut exchange) = exchange.try_borrow_mut() {
                self.bytes = exchange.keep(std::mem::take(&mut self.bytes));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that hands over `text` in a buffer of its own asking.
    fn hand_over(text: &[u8], address: *mut *mut u8, length: *mut usize) -> u32 {
        let buffer = allocate(text.len());
        assert!(!buffer.is_null());
        // SAFETY: `allocate` gave at least `text.len()` bytes; the two out-pointers come from `receive`.
        unsafe {
            buffer.copy_from_nonoverlapping(text.as_ptr(), text.len());
            address.write(buffer);
            length.write(text.len());
        }
        0
    }

    #[test]
    fn a_received_buffer_holds_what_the_host_wrote_and_serves_again() {
        let first = receive(|a, l| hand_over(b"one", a, l)).unwrap();
        assert_eq!(&*first, b"one");
        let address = first.as_ptr();
        // While it is held, the next call gets memory of its own.
        let second = receive(|a, l| hand_over(b"two", a, l)).unwrap();
        assert_eq!((&*first, &*second), (&b"one"[..], &b"two"[..]));
        drop(first);
        let third = receive(|a, l| hand_over(b"three", a, l)).unwrap();
        assert_eq!(third.as_ptr(), address);
        assert_eq!(&*third, b"three");
    }

    #[test]
    fn what_is_read_while_the_headers_are_in_use_allocates_nothing_the_second_time() {
        for headers in [vec![1; LARGE], vec![1; 9]] {
            let exchange = || {
                let held = receive(|a, l| hand_over(&headers, a, l)).unwrap();
                let first = receive(|a, l| hand_over(b"TLSv1.3", a, l)).unwrap().as_ptr();
                let second = receive(|a, l| hand_over(&[2; SMALL], a, l)).unwrap().as_ptr();
                assert_eq!(first, second);
                (held.as_ptr(), first)
            };
            exchange();
            assert_eq!(exchange(), exchange());
        }
    }

    #[test]
    fn a_giant_buffer_is_not_kept() {
        let giant = vec![7; LARGEST_KEPT + 1];
        assert_eq!(&*receive(|a, l| hand_over(&giant, a, l)).unwrap(), giant);
        EXCHANGE.with_borrow(|exchange| assert!(exchange.large.is_empty()));
        drop(receive(|a, l| hand_over(&giant[..LARGEST_KEPT], a, l)).unwrap());
        EXCHANGE.with_borrow(|exchange| assert_eq!(exchange.large.len(), LARGEST_KEPT));
    }

    #[test]
    fn memory_that_was_not_lent_is_refused() {
        let mut own = [1_u8; 4];
        let foreign = own.as_mut_ptr();
        let result = receive(|address, length| {
            allocate(4);
            // SAFETY: the out-pointers come from `receive`.
            unsafe {
                address.write(foreign);
                length.write(4);
            }
            0
        });
        assert_eq!(result.err(), Some(Status::INVALID_MEMORY_ACCESS));
    }

    #[test]
    fn a_length_beyond_what_was_lent_is_refused() {
        let result = receive(|address, length| {
            let buffer = allocate(10);
            // SAFETY: the out-pointers come from `receive`.
            unsafe {
                address.write(buffer);
                length.write(SMALL + 1);
            }
            0
        });
        assert_eq!(result.err(), Some(Status::INVALID_MEMORY_ACCESS));
    }

    #[test]
    fn an_impossible_size_is_null_and_the_next_call_works() {
        assert!(allocate(usize::MAX).is_null());
        assert!(allocate(isize::MAX as usize).is_null());
        assert!(!allocate(0).is_null());
        assert_eq!(&*receive(|a, l| hand_over(b"fine", a, l)).unwrap(), b"fine");
    }

    #[test]
    fn a_failed_call_leaves_nothing_behind() {
        for _ in 0..100 {
            let failed = receive(|_, _| {
                allocate(100);
                Status::NOT_FOUND.code()
            });
            assert_eq!(failed.err(), Some(Status::NOT_FOUND));
        }
        EXCHANGE.with_borrow(|exchange| assert!(exchange.lent.len() <= 1));
        assert!(receive(|_, _| 0).unwrap().is_empty());
    }
}
