//! Looks up Envoy's callbacks by name, once.

use std::ffi::c_void;
#[cfg(not(test))]
use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use super::types::{EnvoyBuffer, EnvoyHeader, ModuleBuffer, ModuleHeader};

/// The address of a filter or of a configuration in Envoy.
type Ptr = *mut c_void;

#[cfg(not(test))]
unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
    fn dlopen(filename: *const c_char, flags: c_int) -> *mut c_void;
}

/// The result of `dladdr`.
#[cfg(not(test))]
#[repr(C)]
struct DlInfo {
    file_name: *const c_char,
    base: *mut c_void,
    symbol_name: *const c_char,
    symbol_address: *mut c_void,
}

/// `RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE` of Linux.
#[cfg(not(test))]
const PIN: c_int = 0x1 | 0x4 | 0x1000;

/// Declares the callbacks: `required` first, then those that an Envoy may lack.
macro_rules! callbacks {
    (required { $($required:ident($($rarg:ty),*) $(-> $rret:ty)?;)* }
     optional { $($optional:ident($($oarg:ty),*) $(-> $oret:ty)?;)* }) => {
        /// The callbacks' addresses.
        #[derive(Debug)]
        pub(super) struct Callbacks {
            $(pub(super) $required: unsafe extern "C" fn($($rarg),*) $(-> $rret)?,)*
            $(pub(super) $optional: Option<unsafe extern "C" fn($($oarg),*) $(-> $oret)?>,)*
        }

        impl Callbacks {
            /// Returns the name of a missing required callback as the error.
            fn find() -> Result<Callbacks, &'static str> {
                Ok(Callbacks {
                    $($required: {
                        let found = symbol(concat!("envoy_dynamic_module_callback_", stringify!($required), "\0"));
                        let found = found.ok_or(stringify!($required))?;
                        // SAFETY: Envoy exports a function of this type under the name.
                        unsafe { std::mem::transmute::<Ptr, unsafe extern "C" fn($($rarg),*) $(-> $rret)?>(found) }
                    },)*
                    $($optional: {
                        let found = symbol(concat!("envoy_dynamic_module_callback_", stringify!($optional), "\0"));
                        // SAFETY: as above.
                        found.map(|found| unsafe {
                            std::mem::transmute::<Ptr, unsafe extern "C" fn($($oarg),*) $(-> $oret)?>(found)
                        })
                    },)*
                })
            }
        }
    };
}

callbacks! {
    required {
        log(u32, ModuleBuffer);
        log_enabled(u32) -> bool;
        http_get_header(Ptr, u32, ModuleBuffer, *mut EnvoyBuffer, usize, *mut usize) -> bool;
        http_get_headers_size(Ptr, u32) -> usize;
        http_get_headers(Ptr, u32, *mut EnvoyHeader) -> bool;
        http_add_header(Ptr, u32, ModuleBuffer, ModuleBuffer) -> bool;
        http_set_header(Ptr, u32, ModuleBuffer, ModuleBuffer) -> bool;
        http_send_response(Ptr, u32, *mut ModuleHeader, usize, ModuleBuffer, ModuleBuffer);
        http_clear_route_cache(Ptr);
        http_filter_get_attribute_string(Ptr, u32, *mut EnvoyBuffer) -> bool;
        http_filter_get_attribute_int(Ptr, u32, *mut u64) -> bool;
        http_set_filter_state_bytes(Ptr, ModuleBuffer, ModuleBuffer) -> bool;
        http_get_filter_state_bytes(Ptr, ModuleBuffer, *mut EnvoyBuffer) -> bool;
        http_filter_continue_decoding(Ptr);
    }
    optional {
        http_get_filter_state_typed(Ptr, ModuleBuffer, *mut EnvoyBuffer) -> bool;
        http_filter_reset_stream(Ptr, u32, ModuleBuffer);
        http_filter_continue_encoding(Ptr);
        http_filter_start_http_stream(Ptr, *mut u64, ModuleBuffer, *mut ModuleHeader, usize, ModuleBuffer, bool, u64) -> u32;
        http_filter_reset_http_stream(Ptr, u64);
        http_filter_config_define_counter(Ptr, ModuleBuffer, *mut ModuleBuffer, usize, *mut usize) -> u32;
        http_filter_config_define_gauge(Ptr, ModuleBuffer, *mut ModuleBuffer, usize, *mut usize) -> u32;
        http_filter_config_define_histogram(Ptr, ModuleBuffer, *mut ModuleBuffer, usize, *mut usize) -> u32;
        http_filter_config_increment_counter(Ptr, usize, *mut ModuleBuffer, usize, u64) -> u32;
        http_filter_config_set_gauge(Ptr, usize, *mut ModuleBuffer, usize, u64) -> u32;
        http_filter_config_record_histogram_value(Ptr, usize, *mut ModuleBuffer, usize, u64) -> u32;
        http_filter_increment_counter(Ptr, usize, *mut ModuleBuffer, usize, u64) -> u32;
        http_filter_set_gauge(Ptr, usize, *mut ModuleBuffer, usize, u64) -> u32;
        http_filter_record_histogram_value(Ptr, usize, *mut ModuleBuffer, usize, u64) -> u32;
        http_filter_config_scheduler_new(Ptr) -> Ptr;
        http_filter_config_scheduler_commit(Ptr, u64);
        http_filter_config_scheduler_delete(Ptr);
        network_filter_get_requested_server_name(Ptr, *mut EnvoyBuffer) -> bool;
        network_filter_get_remote_address(Ptr, *mut EnvoyBuffer, *mut u32) -> bool;
        network_filter_get_local_address(Ptr, *mut EnvoyBuffer, *mut u32) -> bool;
        network_filter_is_ssl(Ptr) -> bool;
        network_filter_close(Ptr, u32);
        network_filter_get_ssl_uri_sans_size(Ptr) -> usize;
        network_filter_get_ssl_uri_sans(Ptr, *mut EnvoyBuffer) -> bool;
        network_get_filter_state_typed(Ptr, ModuleBuffer, *mut EnvoyBuffer) -> bool;
        network_filter_get_attribute_string(Ptr, u32, *mut EnvoyBuffer) -> bool;
        network_filter_config_define_counter(Ptr, ModuleBuffer, *mut usize) -> u32;
        network_filter_config_define_gauge(Ptr, ModuleBuffer, *mut usize) -> u32;
        network_filter_config_define_histogram(Ptr, ModuleBuffer, *mut usize) -> u32;
        network_filter_config_increment_counter(Ptr, usize, u64) -> u32;
        network_filter_config_set_gauge(Ptr, usize, u64) -> u32;
        network_filter_config_record_histogram_value(Ptr, usize, u64) -> u32;
        network_filter_increment_counter(Ptr, usize, u64) -> u32;
        network_filter_set_gauge(Ptr, usize, u64) -> u32;
        network_filter_record_histogram_value(Ptr, usize, u64) -> u32;
        network_filter_config_scheduler_new(Ptr) -> Ptr;
        network_filter_config_scheduler_commit(Ptr, u64);
        network_filter_config_scheduler_delete(Ptr);
    }
}

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

#[cfg(test)]
use super::fake::symbol;

/// The address of a symbol in this process; `name` ends with NUL.
#[cfg(not(test))]
fn symbol(name: &'static str) -> Option<Ptr> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    // SAFETY: the null handle searches every library of the process; the name ends with NUL.
    let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Looks up the callbacks, and keeps the module loaded from now on, because it has its own thread and state that
/// outlives configurations. Returns the name of a missing callback as the error.
#[cfg(not(test))]
pub(crate) fn load() -> Result<(), &'static str> {
    if CALLBACKS.get().is_none() {
        let found = Callbacks::find()?;
        CALLBACKS.get_or_init(|| found);
    }
    pin();
    Ok(())
}

/// In tests, each thread has its own Envoy.
#[cfg(test)]
pub(crate) fn load() -> Result<(), &'static str> {
    if let Some(found) = super::fake::keep(Callbacks::find()?) {
        CALLBACKS.get_or_init(|| found);
    }
    Ok(())
}

/// Keeps this library loaded, even when no configuration names it any more.
#[cfg(not(test))]
fn pin() {
    let mut info = DlInfo {
        file_name: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol_name: std::ptr::null(),
        symbol_address: std::ptr::null_mut(),
    };
    // SAFETY: the address is one of this module's; `info` is valid during the call, and the name in it belongs to the
    // loader. With RTLD_NOLOAD, nothing is loaded and only the flags of the library change.
    unsafe {
        if dladdr((&raw const CALLBACKS).cast(), &raw mut info) != 0 && !info.file_name.is_null() {
            dlopen(info.file_name, PIN);
        }
    }
}

/// The callbacks, after the module was loaded.
#[cfg(not(test))]
pub(super) fn callbacks() -> Option<&'static Callbacks> {
    CALLBACKS.get()
}

#[cfg(test)]
pub(super) fn callbacks() -> Option<&'static Callbacks> {
    super::fake::own_callbacks().or_else(|| CALLBACKS.get())
}

/// A required callback; an error before the module is loaded.
macro_rules! required {
    ($name:ident) => {
        crate::abi::loader::callbacks().map(|all| all.$name).ok_or(crate::error::Error::Missing(stringify!($name)))
    };
}
pub(super) use required;

/// An optional callback.
macro_rules! callback {
    ($name:ident) => {
        crate::abi::loader::callbacks().and_then(|all| all.$name).ok_or(crate::error::Error::Missing(stringify!($name)))
    };
}
pub(super) use callback;

/// Whether this Envoy shows HTTP filters all attributes of [`super::Attribute`]. Since 1.39, all kinds of filters read
/// them in the same way; network filters got their callback then.
pub(crate) fn shows_all_attributes() -> bool {
    callback!(network_filter_get_attribute_string).is_ok()
}

/// Whether this Envoy takes metrics at any time: since 1.39. Before, it takes them only with a request or connection.
pub(crate) fn takes_metrics_at_any_time() -> bool {
    callback!(http_filter_config_increment_counter).is_ok()
}

/// Whether Envoy's log has lines of this level enabled; trace is 0.
pub(crate) fn is_log_enabled(level: u32) -> bool {
    // SAFETY: passes no memory.
    required!(log_enabled).is_ok_and(|enabled| unsafe { enabled(level) })
}

/// Writes one line to Envoy's log, under the id `dynamic_modules`.
pub(crate) fn write_log(level: u32, line: &str) {
    if let Ok(log) = required!(log) {
        // SAFETY: the buffer is valid during the call.
        unsafe { log(level, ModuleBuffer::of(line.as_bytes())) }
    }
}
