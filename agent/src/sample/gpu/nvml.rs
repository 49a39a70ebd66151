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
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::message::GpuFacts;
use super::processes::{Holder, Sample};

/// The name the driver installs its library under; the loader's search path applies.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Exported by a fake NVML, never by a driver's.
const FAKE_MARKER: &[u8] = b"diarwatch_simulated_nvml\0";
/// There while the NVIDIA kernel module is loaded, and the paravirtual one of WSL.
const KERNEL_DRIVER: [&str; 2] = ["/proc/driver/nvidia/version", "/dev/dxg"];
/// NVML field: power now, in milliwatts (`nvmlDeviceGetPowerUsage` is a 1 s average since Ampere).
const FIELD_POWER_INSTANT: FieldId = FieldId(186);
/// NVML field: what the driver wants done about the GPU, since driver 570.
const FIELD_RECOVERY_ACTION: FieldId = FieldId(230);
/// Events of newer drivers that the wrapper has no names for: the GPU is unavailable, and the recovery
/// action changed.
const NEWER_EVENTS: EventTypes = EventTypes::from_bits_retain(0x4000 | 0x8000);
/// The driver's word for an XID without a number.
const XID_UNKNOWN: u32 = 999;

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
        let closed = |missing| Slot::Closed(GpuFacts { index, ..GpuFacts::default() }, missing);
        self.gpu(index).map_or_else(closed, Slot::Open)
    }

    fn gpu(&self, index: u32) -> Result<Gpu<'_>, Missing> {
        let during = |function| (function, Some(index));
        let fail = |error: NvmlError| missing(&error);
        let (function, gpu) = during("nvmlDeviceGetHandleByIndex_v2");
        let device = self.watch.during(function, gpu, || self.nvml.device_by_index(index)).map_err(fail)?;
        let uuid = self.watch.during("nvmlDeviceGetUUID", gpu, || device.uuid()).map_err(fail)?;
        let name = self.watch.during("nvmlDeviceGetName", gpu, || device.name()).unwrap_or_default();
        let bus = self.watch.during("nvmlDeviceGetPciInfo_v3", gpu, || device.pci_info());
        let bus = bus.map(|info| info.bus_id).unwrap_or_default();
        let facts = GpuFacts { index, uuid, name, bus };
        let mut gpu = Gpu { device, watch: self.watch, facts, instant_power: false };
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

    /// The GPU, when it can be read.
    pub fn open(&self) -> Option<&Gpu<'_>> {
        match self {
            Slot::Open(gpu) => Some(gpu),
            Slot::Closed(..) => None,
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

    /// Clock of the multiprocessors, hertz.
    pub fn sm_clock(&self) -> Reading {
        self.call("nvmlDeviceGetClockInfo", |device| device.clock_info(Clock::SM))
            .map(|megahertz| f64::from(megahertz) * 1e6)
    }

    /// What the driver wants done about it: a number of NVML's `nvmlDeviceGpuRecoveryAction_t`.
    pub fn recovery_action(&self) -> Reading {
        self.field(FIELD_RECOVERY_ACTION)
    }

    /// Who holds memory of it. A process that computes and draws stands in both of the driver's lists, with
    /// the same memory. Graphics are left out where the GPU has none.
    pub fn holders(&self) -> Result<[Vec<Holder>; 2], Missing> {
        let function = "nvmlDeviceGetComputeRunningProcesses_v3";
        let compute = self.call(function, Device::running_compute_processes)?;
        let function = "nvmlDeviceGetGraphicsRunningProcesses_v3";
        let graphics = match self.call(function, Device::running_graphics_processes) {
            Err(Missing::NotSupported) => Vec::new(),
            graphics => graphics?,
        };
        Ok([compute, graphics].map(|list| list.iter().map(holder).collect()))
    }

    /// What processes used of it after the driver's time `since_us`, as far as it still knows. That there
    /// is nothing new is an answer.
    pub fn process_samples(&self, since_us: Option<u64>) -> Result<Vec<Sample>, Missing> {
        let answer = self.watch.during("nvmlDeviceGetProcessUtilization", Some(self.facts.index), || {
            self.device.process_utilization_stats(since_us)
        });
        match answer {
            Err(NvmlError::NotFound) => Ok(Vec::new()),
            Err(error) => Err(missing(&error)),
            Ok(samples) => Ok(samples
                .iter()
                .map(|sample| Sample { pid: sample.pid, at_us: sample.timestamp, sm_percent: sample.sm_util })
                .collect()),
        }
    }

    fn power_instant(&self) -> Reading {
        self.field(FIELD_POWER_INSTANT).map(|milliwatts| milliwatts / 1e3)
    }

    #[expect(clippy::cast_precision_loss, reason = "milliwatts and enumerations are far below 2^53")]
    fn field(&self, field: FieldId) -> Reading {
        let fields = self.call("nvmlDeviceGetFieldValues", |device| device.field_values_for(&[field]))?;
        let field = fields.into_iter().next().ok_or(Missing::Failed)?;
        match field.and_then(|field| field.value).map_err(|error| missing(&error))? {
            SampleValue::U32(value) => Ok(f64::from(value)),
            SampleValue::U64(value) => Ok(value as f64),
            SampleValue::F64(value) => Ok(value),
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

/// What the driver reports by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// An XID, of the GPU at this place in the list.
    Xid(Option<usize>, u32),
    /// The recovery action of a GPU may have changed.
    Recovery,
}

/// Waits for what the driver reports.
pub struct Reports<'a> {
    set: EventSet<'a>,
    gpus: &'a [Slot<'a>],
}

impl<'a> Reports<'a> {
    /// Asks for the reports of all GPUs that give any, and says why others do not.
    ///
    /// The wrapper frees a set in which one GPU cannot be registered, so each is tried on a set of its own.
    ///
    /// # Errors
    /// Why none gives any.
    pub fn of(driver: &'a Driver<'_>, gpus: &'a [Slot<'a>]) -> Result<(Self, Option<String>), String> {
        let nvml = &driver.nvml;
        let create = || nvml.create_event_set().map_err(|error| format!("nvmlEventSetCreate: {error}"));
        let mut problem = None;
        let mut good = Vec::new();
        for gpu in gpus.iter().filter_map(Slot::open) {
            let kinds = [EventTypes::CRITICAL_XID_ERROR | NEWER_EVENTS, EventTypes::CRITICAL_XID_ERROR];
            match kinds.map(|kinds| (kinds, create())) {
                [(all, Ok(first)), (least, Ok(second))] => {
                    let registered = gpu.device.register_events(all, first).map(|_| all);
                    match registered.or_else(|_| gpu.device.register_events(least, second).map(|_| least)) {
                        Ok(kinds) => good.push((gpu, kinds)),
                        Err(error) => {
                            let index = gpu.facts.index;
                            problem = Some(format!("nvmlDeviceRegisterEvents: GPU {index}: {}", error.error));
                        }
                    }
                }
                [(_, first), (_, second)] => drop((first?, second?)),
            }
        }
        if good.is_empty() {
            return Err(problem.unwrap_or_else(|| String::from("no GPU can be opened")));
        }
        let register = |set, (gpu, kinds): &(&Gpu<'a>, EventTypes)| {
            gpu.device.register_events(*kinds, set).map_err(|error| error.error.to_string())
        };
        let set = good.iter().try_fold(create()?, register)?;
        Ok((Self { set, gpus }, problem))
    }

    /// What the driver reports next; nothing when that takes longer than this.
    ///
    /// # Errors
    /// Why the driver cannot be waited for.
    pub fn next(&self, patience: Duration) -> Result<Option<Report>, Missing> {
        let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let event = match self.set.wait(millis) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => return Ok(None),
            Err(error) => return Err(missing(&error)),
        };
        let place =
            self.gpus.iter().position(|slot| slot.open().is_some_and(|gpu| same(&gpu.device, &event.device)));
        Ok(Some(match event.event_data {
            Some(XidError::Value(code)) => Report::Xid(place, u32::try_from(code).unwrap_or(XID_UNKNOWN)),
            Some(XidError::Unknown) => Report::Xid(place, XID_UNKNOWN),
            // The wrapper drops the bits it has no names for: both call for the same look.
            None => Report::Recovery,
        }))
    }
}

/// Whether two are one GPU. By their handles: one that fell off the bus answers no question any more.
#[expect(unsafe_code, reason = "the handles are compared, no driver call is made with them")]
fn same(one: &Device<'_>, other: &Device<'_>) -> bool {
    // SAFETY: a handle is a number of the driver's; it is neither followed nor kept.
    unsafe { one.handle() == other.handle() }
}

#[expect(clippy::cast_precision_loss, reason = "device memory is far below 2^53 bytes")]
fn holder(process: &ProcessInfo) -> Holder {
    let memory = match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Ok(bytes as f64),
        UsedGpuMemory::Unavailable => Err(Missing::NotSupported),
    };
    Holder { pid: process.pid, memory }
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
