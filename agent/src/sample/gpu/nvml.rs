//! The only file that knows nvml-wrapper and libloading: opens the driver's library, reads one GPU.
//!
//! Every call is entered in a [`CallWatch`] first, so that one which never returns can be named.
//! Runs in the sampler child only; the agent's own process never loads the library.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diarwatch_shared::clock;
use diarwatch_shared::reading::{Missing, Reading};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use super::message::GpuFacts;

/// The name the driver installs its library under; the loader's search path applies.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Exported by a fake NVML, never by a driver's.
const FAKE_MARKER: &[u8] = b"diarwatch_simulated_nvml\0";
/// There while the NVIDIA kernel module is loaded, and the paravirtual one of WSL.
const KERNEL_DRIVER: [&str; 2] = ["/proc/driver/nvidia/version", "/dev/dxg"];
/// NVML field: power now, in milliwatts (`nvmlDeviceGetPowerUsage` is a 1 s average since Ampere).
const FIELD_POWER_INSTANT: FieldId = FieldId(186);

/// The driver call that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The NVML function.
    pub function: &'static str,
    /// The GPU it is about.
    pub gpu: Option<u32>,
    /// When it was entered, by [`clock::uptime`].
    pub since: Duration,
}

/// Remembers the call under way.
#[derive(Debug, Default)]
pub struct CallWatch {
    current: Mutex<Option<Call>>,
}

impl CallWatch {
    /// The call under way, if there is one.
    #[must_use]
    pub fn current(&self) -> Option<Call> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn during<T>(&self, function: &'static str, gpu: Option<u32>, call: impl FnOnce() -> T) -> T {
        self.set(Some(Call { function, gpu, since: clock::uptime() }));
        let answer = call();
        self.set(None);
        answer
    }

    fn set(&self, call: Option<Call>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }
}

/// The loaded library.
pub struct Driver<'w> {
    nvml: Nvml,
    watch: &'w CallWatch,
    /// Version of the driver.
    pub version: String,
    /// Whether the library is a fake.
    pub simulated: bool,
}

impl<'w> Driver<'w> {
    /// Loads and initialises the library.
    ///
    /// # Errors
    /// Why there is no driver, for a person.
    pub fn open(library: Option<&Path>, watch: &'w CallWatch) -> Result<Self, String> {
        let name = library.map_or(OsStr::new(LIBRARY), Path::as_os_str);
        let nvml = watch
            .during("nvmlInit_v2", None, || Nvml::builder().lib_path(name).init())
            .map_err(|error| format!("{}: {error}", name.display()))?;
        let version = watch
            .during("nvmlSystemGetDriverVersion", None, || nvml.sys_driver_version())
            .unwrap_or_else(|_| String::from("unknown"));
        let simulated = is_fake(name) || !KERNEL_DRIVER.iter().any(|path| Path::new(path).exists());
        Ok(Self { nvml, watch, version, simulated })
    }

    /// Number of GPUs.
    ///
    /// # Errors
    /// Why the driver did not say.
    pub fn count(&self) -> Result<u32, String> {
        self.watch
            .during("nvmlDeviceGetCount_v2", None, || self.nvml.device_count())
            .map_err(|error| format!("nvmlDeviceGetCount_v2: {error}"))
    }

    /// The GPU at an index; one that cannot be opened does not affect its neighbours.
    pub fn slot(&self, index: u32) -> Slot<'_> {
        let closed =
            |missing| Slot::Closed(GpuFacts { index, uuid: String::new(), name: String::new() }, missing);
        self.gpu(index).map_or_else(closed, Slot::Open)
    }

    fn gpu(&self, index: u32) -> Result<Gpu<'_>, Missing> {
        let during = |function| (function, Some(index));
        let fail = |error: NvmlError| missing(&error);
        let (function, gpu) = during("nvmlDeviceGetHandleByIndex_v2");
        let device = self.watch.during(function, gpu, || self.nvml.device_by_index(index)).map_err(fail)?;
        let uuid = self.watch.during("nvmlDeviceGetUUID", gpu, || device.uuid()).map_err(fail)?;
        let name = self.watch.during("nvmlDeviceGetName", gpu, || device.name()).unwrap_or_default();
        let mut gpu =
            Gpu { device, watch: self.watch, facts: GpuFacts { index, uuid, name }, instant_power: false };
        gpu.instant_power = gpu.power_instant().is_ok();
        Ok(gpu)
    }
}

/// One GPU of the loaded driver, or the reason why it cannot be opened: it is told of all the same.
pub enum Slot<'a> {
    /// It can be read.
    Open(Gpu<'a>),
    /// It cannot, though the driver counts it.
    Closed(GpuFacts, Missing),
}

impl Slot<'_> {
    /// What does not change.
    pub fn facts(&self) -> &GpuFacts {
        match self {
            Slot::Open(gpu) => &gpu.facts,
            Slot::Closed(facts, _) => facts,
        }
    }
}

/// One GPU of the loaded driver.
pub struct Gpu<'a> {
    device: Device<'a>,
    watch: &'a CallWatch,
    /// What does not change.
    pub facts: GpuFacts,
    instant_power: bool,
}

impl<'a> Gpu<'a> {
    /// GPU and memory-controller utilisation, ratios.
    pub fn utilization(&self) -> [Reading; 2] {
        match self.call("nvmlDeviceGetUtilizationRates", Device::utilization_rates) {
            Ok(rates) => [Ok(f64::from(rates.gpu) / 100.0), Ok(f64::from(rates.memory) / 100.0)],
            Err(missing) => [Err(missing); 2],
        }
    }

    /// Used and total memory, bytes; the driver's own reserve counts as neither used nor free.
    #[expect(clippy::cast_precision_loss, reason = "device memory is far below 2^53 bytes")]
    pub fn memory(&self) -> [Reading; 2] {
        match self.call("nvmlDeviceGetMemoryInfo_v2", Device::memory_info) {
            Ok(memory) => [Ok(memory.used as f64), Ok(memory.total as f64)],
            Err(missing) => [Err(missing); 2],
        }
    }

    /// Power draw, watts: the instant value where the driver has it, else its one-second average.
    pub fn power(&self) -> Reading {
        if self.instant_power {
            return self.power_instant();
        }
        self.call("nvmlDeviceGetPowerUsage", Device::power_usage)
            .map(|milliwatts| f64::from(milliwatts) / 1e3)
    }

    /// Temperature of the die, degrees Celsius.
    pub fn temperature(&self) -> Reading {
        self.call("nvmlDeviceGetTemperature", |device| device.temperature(TemperatureSensor::Gpu))
            .map(f64::from)
    }

    #[expect(clippy::cast_precision_loss, reason = "milliwatts are far below 2^53")]
    fn power_instant(&self) -> Reading {
        let fields =
            self.call("nvmlDeviceGetFieldValues", |device| device.field_values_for(&[FIELD_POWER_INSTANT]))?;
        let field = fields.into_iter().next().ok_or(Missing::Failed)?;
        match field.and_then(|field| field.value).map_err(|error| missing(&error))? {
            SampleValue::U32(milliwatts) => Ok(f64::from(milliwatts) / 1e3),
            SampleValue::U64(milliwatts) => Ok(milliwatts as f64 / 1e3),
            SampleValue::F64(milliwatts) => Ok(milliwatts / 1e3),
            SampleValue::I64(_) => Err(Missing::NotSupported),
        }
    }

    fn call<T>(
        &self,
        function: &'static str,
        call: impl FnOnce(&Device<'a>) -> Result<T, NvmlError>,
    ) -> Result<T, Missing> {
        self.watch
            .during(function, Some(self.facts.index), || call(&self.device))
            .map_err(|error| missing(&error))
    }
}

/// Whether the library of this name, which is loaded by now, says that it is a fake.
#[expect(
    unsafe_code,
    reason = "the library is loaded already: this takes a second handle and looks a symbol up, no code of it runs"
)]
fn is_fake(name: &OsStr) -> bool {
    // SAFETY: opening an already loaded library runs no initialiser; the symbol is never called.
    unsafe {
        libloading::Library::new(name)
            .is_ok_and(|library| library.get::<unsafe extern "C" fn() -> u32>(FAKE_MARKER).is_ok())
    }
}

fn missing(error: &NvmlError) -> Missing {
    match error {
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) => Missing::NotSupported,
        NvmlError::NoPermission => Missing::NoPermission,
        NvmlError::GpuLost | NvmlError::NotFound => Missing::Lost,
        NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound | NvmlError::Uninitialized => {
            Missing::NoDriver
        }
        NvmlError::Timeout => Missing::Timeout,
        _ => Missing::Failed,
    }
}
