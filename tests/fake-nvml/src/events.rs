//! Events such as XIDs: takes a caller's wish for kinds of events of some GPUs, gives each event of
//! the scenario once to each set that asked for it. A caller that does not wait loses nothing: the
//! events are in the scenario, a set only keeps the number of the last one it gave.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::abi::{Code, Handle, Out, device_entries, returned, system_entries};
use crate::scenario::{Event, Key, Scenario};
use crate::{clock, state};

/// Event sets that are open at once.
const SETS_MAX: usize = 64;
/// How soon a waiting caller sees a new event.
const WAIT_STEP: Duration = Duration::from_millis(2);
/// Single and double bit ECC errors, performance state, XID, clock.
const SUPPORTED: u64 = 1 | 2 | 4 | 8 | 16;
/// GPU unavailable and recovery action: only a driver that knows field 230 tells them.
const SUPPORTED_WITH_RECOVERY: u64 = SUPPORTED | 1 << 14 | 1 << 15;

/// `nvmlEventSet_t`: a number, so that a set that was freed is found out, not followed.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct SetHandle(usize);

/// `nvmlEventData_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct EventData {
    device: Handle,
    kind: u64,
    data: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

#[derive(Default)]
struct EventSet {
    /// The kinds wished for, by GPU.
    kinds: BTreeMap<u32, u64>,
    /// Number of the last event that was given.
    seen: u64,
}

impl EventSet {
    fn next(&self, scenario: &Scenario) -> Option<Event> {
        let wished = |event: &&Event| {
            event.seq > self.seen && self.kinds.get(&event.gpu).is_some_and(|kinds| kinds & event.kind != 0)
        };
        scenario.events.iter().find(wished).copied()
    }
}

struct EventSets {
    open: BTreeMap<usize, EventSet>,
    last: usize,
}

static SETS: Mutex<EventSets> = Mutex::new(EventSets { open: BTreeMap::new(), last: 0 });

fn sets() -> MutexGuard<'static, EventSets> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

system_entries! {
    fn nvmlEventSetCreate(moment, set: Out<SetHandle>) {
        let mut sets = sets();
        if sets.open.len() >= SETS_MAX {
            return Err(Code::INSUFFICIENT_RESOURCES);
        }
        let number = sets.last.wrapping_add(1).max(1);
        set.set(SetHandle(number))?;
        let seen = moment.scenario.events.last().map_or(0, |event| event.seq);
        sets.open.insert(number, EventSet { seen, ..EventSet::default() });
        sets.last = number;
        Ok(())
    };
    fn nvmlEventSetFree(_moment, set: SetHandle)
        sets().open.remove(&set.0).map(drop).ok_or(Code::INVALID_ARGUMENT);
}

device_entries! {
    fn nvmlDeviceGetSupportedEventTypes(device, kinds: Out<u64>) {
        let knows_recovery = device.read(Key::Recovery).is_ok();
        kinds.set(if knows_recovery { SUPPORTED_WITH_RECOVERY } else { SUPPORTED })
    };
    fn nvmlDeviceRegisterEvents(device, kinds: u64, set: SetHandle) {
        let mut sets = sets();
        let set = sets.open.get_mut(&set.0).ok_or(Code::INVALID_ARGUMENT)?;
        *set.kinds.entry(device.index).or_default() |= kinds;
        Ok(())
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait(set: SetHandle, data: Out<EventData>, timeout_ms: u32) -> i32 {
    returned(wait("nvmlEventSetWait", set, timeout_ms).and_then(|event| data.set(event)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(set: SetHandle, data: Out<EventData>, timeout_ms: u32) -> i32 {
    returned(wait("nvmlEventSetWait_v2", set, timeout_ms).and_then(|event| data.set(event)))
}

fn wait(function: &'static str, handle: SetHandle, timeout_ms: u32) -> Result<EventData, Code> {
    let until = clock::uptime() + Duration::from_millis(u64::from(timeout_ms));
    loop {
        let moment = state::enter(function, None)?;
        if let Some(event) = take(handle, &moment.scenario)? {
            return Ok(EventData {
                device: Handle::of(event.gpu),
                kind: event.kind,
                data: event.data,
                gpu_instance: u32::MAX,
                compute_instance: u32::MAX,
            });
        }
        if clock::uptime() >= until {
            return Err(Code::TIMEOUT);
        }
        std::thread::sleep(WAIT_STEP);
    }
}

fn take(handle: SetHandle, scenario: &Scenario) -> Result<Option<Event>, Code> {
    let mut sets = sets();
    let set = sets.open.get_mut(&handle.0).ok_or(Code::INVALID_ARGUMENT)?;
    let event = set.next(scenario);
    set.seen = event.map_or(set.seen, |event| event.seq);
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gets_the_kinds_it_asked_for_of_the_gpus_it_asked_for_once() {
        let scenario = Scenario::parse("gpus = 2\nevent.3 = 1 xid 79\nevent.1 = 1 sbe 0\nevent.2 = 0 xid 48");
        let mut set = EventSet { kinds: BTreeMap::from([(1, 8)]), seen: 0 };
        let event = set.next(&scenario).unwrap();
        assert_eq!((event.seq, event.data), (3, 79));
        set.seen = event.seq;
        assert_eq!(set.next(&scenario), None);
    }

    #[test]
    fn a_freed_set_is_an_invalid_argument() {
        assert_eq!(take(SetHandle(usize::MAX), &Scenario::parse("")), Err(Code::INVALID_ARGUMENT));
    }
}
