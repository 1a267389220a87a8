//! The callbacks and host calls that the suite needs for a request that all four sections allow, and nothing else: no header is
//! looked at, nothing is decided. What the host alone costs; no filter that does these jobs through this ABI can cost less.

/// Memory for whatever the host hands over: it is never looked at.
const SIZE: usize = 64 * 1024;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_replace_header_map_value(map: u32, name: *const u8, name_size: usize, value: *const u8, size: usize) -> u32;
}

/// The ABI that this module speaks.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// The same memory for every request: only one is being looked at.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    static mut MEMORY: [u8; SIZE] = [0; SIZE];
    if size <= SIZE { (&raw mut MEMORY).cast() } else { core::ptr::null_mut() }
}

/// For each VM, plugin and request.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_context: u32, _parent: u32) {}

/// One fetch of the header map; the time for the limit, of which a lease is there; the route header.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_context: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    let (mut data, mut size, mut time) = (core::ptr::null_mut(), 0, 0);
    let name = "x-penstock-route";
    // SAFETY: each address goes with the length of the same text; what the host writes to lives through the calls.
    unsafe {
        proxy_get_header_map_pairs(0, &raw mut data, &raw mut size);
        proxy_get_current_time_nanoseconds(&raw mut time);
        proxy_replace_header_map_value(0, name.as_ptr(), name.len(), "v1".as_ptr(), 2);
    }
    0
}

/// For headers of the response, had there been any.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_response_headers(_context: u32, _headers: usize, _end_of_stream: u32) -> u32 {
    0
}

/// The end.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(_context: u32) {}
