//! The platform proxy-wasm (ABI 0.2.1): Envoy, Istio, Envoy Gateway.
//!
//! A module is one line, `penstock_wasm::module!(HeaderRouting);`: it exports the callbacks, and each callback is a safe
//! function of [`Vm`], which finds the plugin and the request of the callback; [`penstock_host`] handles them. A
//! request crosses between proxy and module as rarely as possible: the header map comes over in one
//! call and is parsed where it lies, and each change that was decided is one call back.

mod abi;
#[cfg(test)]
mod fake_abi;
mod headers;
mod host;
mod logger;
mod memory;
mod shared;
#[cfg(test)]
mod tests;
#[cfg(feature = "trap")]
mod trap;
mod vm;

pub use memory::allocate;
pub use penstock_policy::module;
pub use vm::{Vm, initialize, vm_start};

/// Makes the crate a proxy-wasm module that runs the sections of the module named, a type of [`mod@module`].
///
/// Only these callbacks are exported: the proxy skips those that a module does not export, and every exported one costs
/// a call for each request.
#[macro_export]
macro_rules! module {
    ($module:ident) => {
        // The proxy finds callbacks by their names. Exporting names is the only unsafe part of this macro.
        #[allow(unsafe_code)]
        mod callbacks {
            use $crate::Vm;

            thread_local! {
                static VM: Vm<$crate::module::$module> = const { Vm::new() };
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_abi_version_0_2_1() {}

            #[unsafe(no_mangle)]
            extern "C" fn _initialize() {
                $crate::initialize();
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
                $crate::allocate(size)
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_vm_start(_plugin: u32, _size: usize) -> u32 {
                $crate::vm_start().into()
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
                VM.with(|vm| vm.context_create(context, parent));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_configure(plugin: u32, size: usize) -> u32 {
                VM.with(|vm| vm.configure(plugin, size)).into()
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_request_headers(stream: u32, _count: u32, end_of_stream: u32) -> u32 {
                VM.with(|vm| vm.request_headers(stream, end_of_stream != 0)) as u32
            }

            $crate::callbacks_of_connections!($module);
            $crate::callbacks_of_bodies!($module);
            $crate::callbacks_of_responses!($module);
            $crate::callbacks_of_trailers!($module);
            $crate::callbacks_of_calls!($module);

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_tick(plugin: u32) {
                VM.with(|vm| vm.tick(plugin));
            }

            #[unsafe(no_mangle)]
            extern "C" fn proxy_on_delete(context: u32) {
                VM.with(|vm| vm.delete(context));
            }
        }
    };
}

/// The callbacks of gRPC calls, for the modules that run `rateLimits`.
#[doc(hidden)]
#[macro_export]
macro_rules! callbacks_of_calls {
    (RateLimit) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_grpc_receive(_plugin: u32, call: u32, size: usize) {
            VM.with(|vm| vm.grpc_receive(call, size));
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_grpc_close(_plugin: u32, call: u32, _status: u32) {
            VM.with(|vm| vm.grpc_close(call));
        }
    };
    (Suite) => {
        $crate::callbacks_of_calls!(RateLimit);
    };
    ($other:ident) => {};
}

/// The callbacks of the network filter, for the modules that run `egress`.
#[doc(hidden)]
#[macro_export]
macro_rules! callbacks_of_connections {
    (EgressAllowlist) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_new_connection(stream: u32) -> u32 {
            VM.with(|vm| vm.new_connection(stream)) as u32
        }
    };
    (Suite) => {
        $crate::callbacks_of_connections!(EgressAllowlist);
    };
    ($other:ident) => {};
}

/// The callback of the response, for the modules whose decisions need it: rate limits write quota
/// headers, canaries a cookie, and both routes and canaries watch the result of a request.
#[doc(hidden)]
#[macro_export]
macro_rules! callbacks_of_responses {
    (EgressAllowlist) => {};
    ($other:ident) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_headers(stream: u32, _count: u32, end_of_stream: u32) -> u32 {
            VM.with(|vm| vm.response_headers(stream, end_of_stream != 0)) as u32
        }
    };
}

/// The callbacks of a request's body, for the modules that need its end, from which the upstream's latency is measured,
/// or that must hold it back while a rate-limit service is called.
#[doc(hidden)]
#[macro_export]
macro_rules! callbacks_of_bodies {
    (EgressAllowlist) => {};
    ($other:ident) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_body(stream: u32, _size: usize, end_of_stream: u32) -> u32 {
            VM.with(|vm| vm.request_body(stream, end_of_stream != 0)) as u32
        }

        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_request_trailers(stream: u32, _count: u32) -> u32 {
            VM.with(|vm| vm.request_body(stream, true)) as u32
        }
    };
}

/// The callback of a response's trailers, which contain the status of a gRPC call, for the modules with breakers.
#[doc(hidden)]
#[macro_export]
macro_rules! callbacks_of_trailers {
    (EgressAllowlist) => {};
    (RateLimit) => {};
    ($other:ident) => {
        #[unsafe(no_mangle)]
        extern "C" fn proxy_on_response_trailers(stream: u32, _count: u32) -> u32 {
            VM.with(|vm| vm.response_trailers(stream)) as u32
        }
    };
}
