//! The C side: return codes, the structs of nvml.h, and the caller's pointers. Takes plain values
//! from the entry points, writes them where the caller asked.
//!
//! Every dereference of this library is here. A pointer wrapper has no constructor: it exists only
//! as an argument that came over the C ABI, where nvml.h makes the caller vouch for it. Null is
//! checked, and answered with "invalid argument".

use std::ffi::{CStr, c_char};

/// Bytes of a text that a caller hands in (a UUID, a bus id); what is longer names nothing here.
const TEXT_BYTES_MAX: usize = 256;

/// What an NVML function returns, other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

/// What an entry point found.
pub(crate) type Answer = Result<(), Code>;

impl Code {
    pub(crate) const UNINITIALIZED: Self = Self(1);
    pub(crate) const INVALID_ARGUMENT: Self = Self(2);
    pub(crate) const NOT_SUPPORTED: Self = Self(3);
    pub(crate) const NOT_FOUND: Self = Self(6);
    pub(crate) const INSUFFICIENT_SIZE: Self = Self(7);
    pub(crate) const TIMEOUT: Self = Self(10);
    pub(crate) const GPU_IS_LOST: Self = Self(15);
    pub(crate) const INSUFFICIENT_RESOURCES: Self = Self(23);

    /// NVML's own words for the code.
    pub(crate) fn text(self) -> &'static CStr {
        match self.0 {
            0 => c"Success",
            1 => c"Uninitialized",
            2 => c"Invalid Argument",
            3 => c"Not Supported",
            4 => c"Insufficient Permissions",
            5 => c"Already Initialized",
            6 => c"Not Found",
            7 => c"Insufficient Size",
            8 => c"Insufficient External Power",
            9 => c"Driver Not Loaded",
            10 => c"Timeout",
            13 => c"Function Not Found",
            15 => c"GPU is lost",
            16 => c"GPU requires reset",
            18 => c"Driver/library version mismatch",
            20 => c"Insufficient Memory",
            21 => c"No data",
            23 => c"Insufficient Resources",
            _ => c"Unknown Error",
        }
    }
}

/// The number that goes back over the C ABI.
pub(crate) fn returned(answer: Answer) -> i32 {
    answer.map_or_else(|code| code.0, |()| 0)
}

/// `nvmlDevice_t`: the index of the GPU plus one, never dereferenced by anyone.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(usize);

impl Handle {
    pub(crate) fn of(index: u32) -> Self {
        Self(index as usize + 1)
    }

    pub(crate) fn index(self) -> Option<u32> {
        self.0.checked_sub(1).and_then(|index| u32::try_from(index).ok())
    }
}

/// A pointer to a place for one value, or for the first of several.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// Writes the value.
    pub(crate) fn set(self, value: T) -> Answer {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller of NVML gives a place for a T. Unaligned on purpose: a
        // packed struct of the caller is no reason to crash it.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Reads what the caller put there.
    pub(crate) fn get(self) -> Result<T, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller of NVML gives an initialised T.
        Ok(unsafe { self.0.read_unaligned() })
    }

    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The place of the value number `index`; the caller said that there are that many.
    fn nth(self, index: usize) -> Self {
        Self(self.0.wrapping_add(index))
    }

    /// Changes each of `count` values in turn.
    pub(crate) fn each(self, count: usize, mut change: impl FnMut(T) -> T) -> Answer {
        for index in 0..count {
            let place = self.nth(index);
            place.set(change(place.get()?))?;
        }
        Ok(())
    }

    /// NVML's lists in two steps: too small a buffer, or none, is answered with the size needed.
    pub(crate) fn set_list(self, items: &[T], count: Out<u32>) -> Answer {
        let room = count.get()? as usize;
        count.set(u32::try_from(items.len()).unwrap_or(u32::MAX))?;
        if items.is_empty() {
            return Ok(());
        }
        if self.is_null() || room < items.len() {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        items.iter().enumerate().try_for_each(|(index, item)| self.nth(index).set(*item))
    }
}

impl Out<c_char> {
    /// Writes a text and its closing NUL into a buffer of `room` bytes.
    pub(crate) fn set_text(self, text: &str, room: u32) -> Answer {
        if self.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        if text.len() >= room as usize {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        let bytes = text.bytes().chain([0]).map(u8::cast_signed);
        bytes.enumerate().try_for_each(|(index, byte)| self.nth(index).set(byte as c_char))
    }
}

/// A text of the caller, NUL-terminated.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(crate) fn read(self) -> Result<String, Code> {
        let start = Out(self.0.cast_mut());
        let mut bytes = Vec::new();
        for index in 0..TEXT_BYTES_MAX {
            match start.nth(index).get()?.to_ne_bytes() {
                [0] => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                [byte] => bytes.push(byte),
            }
        }
        Err(Code::INVALID_ARGUMENT)
    }
}

/// One entry point per function below: entered through `state`, its body sees the [`Device`].
///
/// [`Device`]: crate::state::Device
macro_rules! device_entries {
    ($(fn $name:ident($device:ident $(, $argument:ident: $kind:ty)* $(,)?) $body:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(handle: $crate::abi::Handle $(, $argument: $kind)*) -> i32 {
            $crate::abi::returned($crate::state::on_device(stringify!($name), handle, |$device| $body))
        }
    )*};
}

/// The same for functions that ask the library as a whole; the body sees the [`Moment`].
///
/// [`Moment`]: crate::book::Moment
macro_rules! system_entries {
    ($(fn $name:ident($moment:ident $(, $argument:ident: $kind:ty)* $(,)?) $body:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $kind),*) -> i32 {
            $crate::abi::returned($crate::state::on_system(stringify!($name), |$moment| $body))
        }
    )*};
}

pub(crate) use {device_entries, system_entries};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_does_not_fit_is_answered_with_the_size_needed() {
        let (mut count, mut room) = (1_u32, [0_u64; 2]);
        let (count_out, list) = (Out(&raw mut count), Out(room.as_mut_ptr()));
        assert_eq!(list.set_list(&[7, 8], count_out), Err(Code::INSUFFICIENT_SIZE));
        assert_eq!(count_out.get(), Ok(2));
        assert_eq!(list.set_list(&[7, 8], count_out), Ok(()));
        assert_eq!(list.nth(1).get(), Ok(8));
    }

    #[test]
    fn a_text_needs_room_for_its_nul() {
        let mut room = [1 as c_char; 4];
        let out = Out(room.as_mut_ptr());
        assert_eq!(out.set_text("abcd", 4), Err(Code::INSUFFICIENT_SIZE));
        assert_eq!(out.set_text("abc", 4), Ok(()));
        assert_eq!(Text(room.as_ptr()).read(), Ok(String::from("abc")));
    }

    #[test]
    fn null_is_an_invalid_argument() {
        let null: Out<u32> = Out(std::ptr::null_mut());
        assert_eq!(null.set(1), Err(Code::INVALID_ARGUMENT));
        assert_eq!(null.set_list(&[], null), Err(Code::INVALID_ARGUMENT));
        assert_eq!(Text(std::ptr::null()).read(), Err(Code::INVALID_ARGUMENT));
        assert_eq!(Handle(0).index(), None);
    }
}
