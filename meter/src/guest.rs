//! One VM with one module.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use wasmi::{Engine, ExternType, Func, Linker, Module, Store, Val};

use crate::count::{self, CounterSubject};
use crate::host::{self, MeterHost};

/// A module in its own VM, with its host.
pub struct Guest {
    store: Store<MeterHost>,
    instance: wasmi::Instance,
    callbacks: u64,
}

/// The cost of a piece of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Guest instructions.
    pub instructions: u64,
    /// Calls from the guest to the host.
    pub host_calls: u64,
    /// Calls from the host to the guest, including those for memory.
    pub callbacks: u64,
}

impl Guest {
    /// Loads a module file and starts its VM.
    pub fn load(module: &Path) -> Result<Guest> {
        Guest::counting(module, CounterSubject::Module)
    }

    /// The same, with counts for each function in [`Guest::spent_by_function`]; then [`Guest::spent`] has no
    /// instructions.
    pub fn load_profiling(module: &Path) -> Result<Guest> {
        Guest::counting(module, CounterSubject::Function)
    }

    fn counting(module: &Path, per: CounterSubject) -> Result<Guest> {
        let bytes = std::fs::read(module)
            .with_context(|| format!("there is no {}; build the modules first: make build", module.display()))?;
        let bytes = count::counting(&bytes, per).with_context(|| module.display().to_string())?;
        let engine = Engine::default();
        let module = Module::new(&engine, &bytes).map_err(|error| anyhow!("{}: {error}", module.display()))?;
        let mut store = Store::new(&engine, MeterHost::default());
        let mut linker = Linker::new(&engine);
        host::link(&mut linker)?;
        // Functions that this host lacks return UNIMPLEMENTED, as in an older Envoy.
        for import in module.imports() {
            let ExternType::Func(kind) = import.ty() else { continue };
            let unimplemented = Func::new(&mut store, kind.clone(), |_, _, results| {
                results.iter_mut().for_each(|result| *result = Val::I32(host::UNIMPLEMENTED.cast_signed()));
                Ok(())
            });
            // An error means that the function is already defined.
            let _ = linker.define(import.module(), import.name(), unimplemented);
        }
        let instance =
            linker.instantiate_and_start(&mut store, &module).map_err(|error| anyhow!("cannot start it: {error}"))?;
        let mut guest = Guest { store, instance, callbacks: 0 };
        guest.call("_initialize", [])?;
        guest.call("proxy_on_context_create", [Self::PLUGIN, 0])?;
        guest.call("proxy_on_vm_start", [Self::PLUGIN, 0])?;
        Ok(guest)
    }

    /// The id of the plugin's context.
    pub const PLUGIN: u32 = 1;

    /// The host.
    pub fn host(&mut self) -> &mut MeterHost {
        self.store.data_mut()
    }

    /// The size of the guest's memory in KiB. It never shrinks.
    pub fn memory_kib(&self) -> u64 {
        self.instance.get_memory(&self.store, "memory").map_or(0, |memory| memory.size(&self.store) * 64)
    }

    /// Calls an export with numbers and returns its result. Like Envoy, does nothing when the module does not have the
    /// export. Returns an error when the module traps.
    pub fn call<const N: usize>(&mut self, export: &str, arguments: [u32; N]) -> Result<Option<u32>> {
        let Some(function) = self.instance.get_func(&self.store, export) else { return Ok(None) };
        let results = function.ty(&self.store).results().len();
        let arguments = arguments.map(|argument| Val::I32(argument.cast_signed()));
        let mut result = [Val::I32(0)];
        self.callbacks += 1;
        function
            .call(&mut self.store, &arguments, result.get_mut(..results).unwrap_or_default())
            .map_err(|error| anyhow!("{export} trapped: {error}"))?;
        let [result] = result;
        Ok((results == 1).then(|| result.i32().unwrap_or(0).cast_unsigned()))
    }

    /// Passes a configuration to the plugin; returns whether the plugin accepts it.
    pub fn configure(&mut self, configuration: impl Into<Vec<u8>>) -> Result<bool> {
        self.configure_as(Self::PLUGIN, configuration)
    }

    /// The same for any context.
    pub fn configure_as(&mut self, plugin: u32, configuration: impl Into<Vec<u8>>) -> Result<bool> {
        self.host().configuration = configuration.into();
        let size = u32::try_from(self.host().configuration.len())?;
        Ok(self.call("proxy_on_configure", [plugin, size])? == Some(1))
    }

    /// The request callbacks of a stream; returns whether the request continues.
    pub fn request(&mut self, stream: u32) -> Result<bool> {
        self.call("proxy_on_context_create", [stream, Self::PLUGIN])?;
        let count = u32::try_from(self.host().request_headers.len())?;
        Ok(self.call("proxy_on_request_headers", [stream, count, 1])? == Some(0))
    }

    /// The response callbacks, and the end of the stream.
    pub fn response(&mut self, stream: u32) -> Result<()> {
        let count = u32::try_from(self.host().response_headers.len())?;
        self.call("proxy_on_response_headers", [stream, count, 1])?;
        self.end(stream)
    }

    /// The end of a stream.
    pub fn end(&mut self, stream: u32) -> Result<()> {
        self.call("proxy_on_done", [stream])?;
        self.call("proxy_on_log", [stream])?;
        self.call("proxy_on_delete", [stream])?;
        Ok(())
    }

    /// The total cost since the VM started.
    pub fn spent(&self) -> Spent {
        let host = self.store.data();
        let counter = self.instance.get_global(&self.store, count::COUNTER);
        Spent {
            instructions: counter.and_then(|counter| counter.get(&self.store).i64()).unwrap_or(0).cast_unsigned(),
            host_calls: host.calls.values().sum(),
            callbacks: self.callbacks + host.allocations,
        }
    }

    /// The instructions of each function body since the VM started.
    pub fn spent_by_function(&self) -> Vec<u64> {
        let counter = |number: usize| self.instance.get_global(&self.store, &format!("{}{number}", count::COUNTER));
        let counters = (0..).map_while(counter);
        counters.map(|counter| counter.get(&self.store).i64().unwrap_or(0).cast_unsigned()).collect()
    }

    /// The cost of `work`.
    pub fn cost_of(&mut self, work: impl FnOnce(&mut Guest) -> Result<()>) -> Result<Spent> {
        let before = self.spent();
        work(self)?;
        let after = self.spent();
        Ok(Spent {
            instructions: after.instructions - before.instructions,
            host_calls: after.host_calls - before.host_calls,
            callbacks: after.callbacks - before.callbacks,
        })
    }
}
