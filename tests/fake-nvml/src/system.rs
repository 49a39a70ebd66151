//! The library and the machine: start and end, versions, finding GPUs.

use std::ffi::c_char;

use crate::abi::{Answer, Code, Handle, Out, Text, returned, system_entries};
use crate::device::bus_id;
use crate::state;

system_entries! {
    fn nvmlInit(_moment) begin();
    fn nvmlInit_v2(_moment) begin();
    fn nvmlInitWithFlags(_moment, _flags: u32) begin();
    fn nvmlShutdown(_moment) {
        state::end();
        Ok(())
    };

    fn nvmlSystemGetDriverVersion(moment, version: Out<c_char>, room: u32)
        version.set_text(&moment.scenario.driver, room);
    fn nvmlSystemGetNVMLVersion(moment, version: Out<c_char>, room: u32)
        version.set_text(&format!("12.{}", moment.scenario.driver), room);
    fn nvmlSystemGetCudaDriverVersion(moment, version: Out<i32>) version.set(moment.scenario.cuda);
    fn nvmlSystemGetCudaDriverVersion_v2(moment, version: Out<i32>) version.set(moment.scenario.cuda);
    fn nvmlSystemGetProcessName(_moment, pid: u32, name: Out<c_char>, room: u32) {
        let executable = std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|_| Code::NOT_FOUND)?;
        name.set_text(&executable.to_string_lossy(), room)
    };

    fn nvmlDeviceGetCount_v2(moment, count: Out<u32>)
        count.set(u32::try_from(moment.scenario.cards.len()).unwrap_or(u32::MAX));
    fn nvmlDeviceGetHandleByUUID(moment, uuid: Text, handle: Out<Handle>) {
        let uuid = uuid.read()?;
        let found = (0..).zip(&moment.scenario.cards).find(|(_, card)| card.uuid == uuid);
        handle.set(Handle::of(found.ok_or(Code::NOT_FOUND)?.0))
    };
    fn nvmlDeviceGetHandleByPciBusId_v2(moment, bus: Text, handle: Out<Handle>) {
        let bus = bus.read()?.to_ascii_lowercase();
        let found = (0..).zip(&moment.scenario.cards).find(|(index, _)| same_bus(&bus, *index));
        handle.set(Handle::of(found.ok_or(Code::NOT_FOUND)?.0))
    };
}

/// About a GPU, though it takes no handle: a lost GPU is lost here too.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, handle: Out<Handle>) -> i32 {
    let of_index = Handle::of(index);
    returned(state::on_device("nvmlDeviceGetHandleByIndex_v2", of_index, |_| handle.set(of_index)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlErrorString(code: i32) -> *const c_char {
    Code(code).text().as_ptr()
}

fn begin() -> Answer {
    state::begin();
    Ok(())
}

/// Domains are written with four digits or with eight.
fn same_bus(asked: &str, index: u32) -> bool {
    let full = bus_id(index).to_ascii_lowercase();
    asked == full || full.strip_prefix("0000").is_some_and(|short| asked == short)
}

#[cfg(test)]
mod tests {
    use super::same_bus;

    #[test]
    fn a_bus_id_is_found_with_a_short_and_with_a_long_domain() {
        assert!(same_bus("00000000:11:00.0", 1));
        assert!(same_bus("0000:11:00.0", 1));
        assert!(!same_bus("0000:11:00.0", 2));
        assert!(!same_bus("", 1));
    }
}
