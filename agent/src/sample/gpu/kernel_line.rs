//! A line of the kernel's log to an XID. Takes the text that the NVIDIA module writes; gives the GPU's place
//! on the bus, the code and the process, as far as they stand there. Pure; no text makes it panic.

use diarwatch_shared::event::RecoveryAction;

use super::xid::XID_RECOVERY_ACTION;

/// Bytes of what the line says beyond that, that are kept.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// A GPU's place on the PCI bus: domain, bus, device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bus {
    domain: u32,
    bus: u8,
    device: u8,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which GPU.
    pub(super) bus: Bus,
    /// The XID.
    pub(super) code: u32,
    /// The process that it hit.
    pub(super) pid: Option<u32>,
    /// What the driver wants done from now on, where the line says so.
    pub(super) recovery: Option<RecoveryAction>,
    /// The rest of the line, for a person.
    pub(super) text: String,
}

impl Line {
    /// One of which nothing but the code is known.
    pub(super) fn bare(code: u32) -> Self {
        let bus = Bus { domain: 0, bus: 0, device: 0 };
        Self { bus, code, pid: None, recovery: None, text: String::new() }
    }
}

impl Bus {
    /// Reads `0000:01:00`, `00000000:01:00.0` and what the module writes behind it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let place = text.split([' ', '.']).next()?;
        let mut parts = place.split(':');
        let mut hex = |digits_max: usize| {
            let part = parts.next()?;
            let fits = !part.is_empty() && part.len() <= digits_max;
            u32::from_str_radix(part, 16).ok().filter(|_| fits && !part.starts_with('+'))
        };
        let (domain, bus, device) = (hex(8)?, hex(2)?, hex(2)?);
        let whole = parts.next().is_none();
        whole.then_some(Self { domain, bus: u8::try_from(bus).ok()?, device: u8::try_from(device).ok()? })
    }
}

/// Reads a line such as `NVRM: Xid (PCI:0000:01:00): 79, pid=4242, name=python, GPU has fallen off the bus.`
pub(super) fn read(line: &str) -> Option<Line> {
    let (before, rest) = line.split_once("NVRM: Xid (")?;
    // A line that only quotes one is not of the module; a time or a host may stand before it.
    if before.contains(['"', '\'', '`']) {
        return None;
    }
    let (place, rest) = rest.split_once("):")?;
    let bus = Bus::read(place.strip_prefix("PCI:").unwrap_or(place))?;
    let rest = rest.trim_start();
    let (code, rest) =
        rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len()));
    let code: u32 = code.parse().ok()?;
    let (mut pid, mut text) = (None, rest.trim_start_matches([',', ' ']));
    if let Some((field, after)) = field(text, "pid=") {
        pid = field.trim_matches('\'').parse().ok().filter(|pid| *pid != 0);
        text = after;
    }
    // A program's name may hold anything; it is left where it is, for a person.
    let recovery = (code == XID_RECOVERY_ACTION).then(|| wanted(text)).flatten();
    let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default();
    Some(Line { bus, code, pid, recovery, text: text.trim().to_owned() })
}

/// `KEY VALUE, REST` to value and rest.
fn field<'a>(text: &'a str, key: &str) -> Option<(&'a str, &'a str)> {
    let value = text.strip_prefix(key)?;
    let (value, rest) = value.split_once(',').unwrap_or((value, ""));
    Some((value.trim(), rest.trim_start()))
}

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`.
fn wanted(text: &str) -> Option<RecoveryAction> {
    let (_, to) = text.rsplit_once(" to 0x")?;
    let digits = to.split(|letter: char| !letter.is_ascii_hexdigit()).next()?;
    u32::from_str_radix(digits, 16).ok().map(RecoveryAction::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bus(bus: u8) -> Bus {
        Bus { domain: 0, bus, device: 0 }
    }

    fn line(at: u8, code: u32, pid: Option<u32>, text: &str) -> Option<Line> {
        Some(Line { bus: bus(at), code, pid, recovery: None, text: text.into() })
    }

    #[test]
    fn lines_of_old_and_new_drivers_are_read() {
        for (text, expected) in [
            (
                "NVRM: Xid (PCI:0000:01:00): 79, pid=4242, name=python, GPU has fallen off the bus.",
                line(1, 79, Some(4242), "name=python, GPU has fallen off the bus."),
            ),
            (
                "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
                line(0x3b, 79, None, "name=<unknown>, GPU has fallen off the bus."),
            ),
            (
                "NVRM: Xid (PCI:0000:01:00): 31, pid=910, name=uvicorn, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f12_3456",
                line(
                    1,
                    31,
                    Some(910),
                    "name=uvicorn, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f12_3456",
                ),
            ),
            (
                "NVRM: Xid (0000:03:00): 13, 0001 00000000 000090c0",
                line(3, 13, None, "0001 00000000 000090c0"),
            ),
            (
                "NVRM: Xid (PCI:0000:17:00 GPU-I:05): 43, pid=7, name=a, Ch 00000010",
                line(0x17, 43, Some(7), "name=a, Ch 00000010"),
            ),
            ("[ 1231.378609] NVRM: Xid (PCI:0000:09:00): 45, pid=2091", line(9, 45, Some(2091), "")),
            ("NVRM: Xid (PCI:0000:b3:00): 48", line(0xb3, 48, None, "")),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_change_of_the_recovery_action_says_what_is_wanted() {
        let text = "NVRM: Xid (PCI:0000:01:00): 154, pid='<unknown>', name=<unknown>, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)";
        assert_eq!(read(text).unwrap().recovery, Some(RecoveryAction::NodeReboot));
        let other = text.replace(": 154,", ": 31,");
        assert_eq!(read(&other).unwrap().recovery, None);
    }

    #[test]
    fn what_is_no_report_of_a_gpu_is_left_alone() {
        for text in [
            "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.86.15",
            "nvidia-nvswitch0: SXid (PCI:0000:a9:00.0): 20009, Non-fatal, Link 27 RX Short Error Rate",
            "NVRM: GPU at PCI:0000:01:00: GPU-aaaa",
            "NVRM: Xid (PCI:0000:01): 79, pid=1",
            "NVRM: Xid (PCI:0000:01:00): many",
            "NVRM: Xid (PCI:0000:01:00): 99999999999",
            "audit: \"NVRM: Xid (PCI:0000:01:00): 79\"",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn one_gpu_has_one_place_however_it_is_written() {
        let place = Bus::read("00000000:10:00.0");
        assert_eq!(place, Some(bus(0x10)));
        assert_eq!(Bus::read("0000:10:00"), place);
        assert_ne!(Bus::read("0001:10:00"), place);
        assert_eq!(Bus::read("0000:+1:00"), None);
    }

    proptest! {
        #[test]
        fn a_line_of_the_module_comes_back_as_it_was_written(
            domain in 0_u32..0x1_0000, at: u8, code in 1_u32..1_000, pid in 1_u32..4_000_000,
            name in "[a-zA-Z0-9_.:-]{1,15}", text in "[ -~]{0,400}",
        ) {
            let written = format!("NVRM: Xid (PCI:{domain:04x}:{at:02x}:00): {code}, pid={pid}, name={name}, {text}");
            let read = read(&written).unwrap();
            prop_assert_eq!((read.bus, read.code, read.pid), (Bus { domain, bus: at, device: 0 }, code, Some(pid)));
            prop_assert!(read.text.len() <= TEXT_BYTES_MAX && read.text.starts_with("name="));
        }

        #[test]
        fn no_text_makes_the_reader_panic(
            words in prop::collection::vec(prop_oneof![
                Just("NVRM: Xid ("), Just("PCI:"), Just("0000:"), Just("01:00"), Just("):"), Just(" 154"), Just(", "),
                Just("pid="), Just("'"), Just("é"), Just(" to 0x"), Just("99999999999999"), Just("name="), Just("("),
            ], 0..24),
            text in "\\PC{0,300}",
        ) {
            let _ = read(&words.concat());
            let _ = read(&format!("NVRM: Xid (PCI:0000:01:00): 154, {text}"));
        }
    }
}
