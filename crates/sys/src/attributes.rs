//! Extended attributes of open files (xattr(7)), which nix does not know. Access control lists are two of them.
//! Used by the dataplane's trees.
#![expect(unsafe_code, reason = "system calls that nix does not wrap")]
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// The names of all attributes, each with a NUL behind it (flistxattr(2)). Those of the kernel that this process may not see
/// are not among them.
///
/// # Errors
/// The system's error; `ERANGE` where they do not fit `room`.
pub fn list(file: impl AsFd, room: &mut [u8]) -> Result<&[u8], Errno> {
    let (descriptor, length) = (file.as_fd().as_raw_fd(), room.len());
    // SAFETY: `room` is writable for `length` bytes during the call, and the descriptor is open as long as `file` is.
    let result = unsafe { libc::flistxattr(descriptor, room.as_mut_ptr().cast(), length) };
    taken(result, room)
}

/// The value of an attribute (fgetxattr(2)).
///
/// # Errors
/// The system's error; `ENODATA` where there is none of this name, `ERANGE` where it does not fit `room`.
pub fn value<'a>(file: impl AsFd, name: &CStr, room: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (descriptor, length) = (file.as_fd().as_raw_fd(), room.len());
    // SAFETY: `name` ends with a NUL, `room` is writable for `length` bytes during the call, and the descriptor is open as
    // long as `file` is.
    let result = unsafe { libc::fgetxattr(descriptor, name.as_ptr(), room.as_mut_ptr().cast(), length) };
    taken(result, room)
}

/// Sets an attribute, new or not (fsetxattr(2)).
///
/// # Errors
/// The system's error; `EOPNOTSUPP` where the file system keeps none of this kind.
pub fn set(file: impl AsFd, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: `name` ends with a NUL, `value` is readable for its length during the call, and the descriptor is open as long
    // as `file` is.
    let result = unsafe { libc::fsetxattr(descriptor, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// Removes an attribute (fremovexattr(2)).
///
/// # Errors
/// The system's error; `ENODATA` where there is none of this name.
pub fn remove(file: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: `name` ends with a NUL, and the descriptor is open as long as `file` is.
    let result = unsafe { libc::fremovexattr(descriptor, name.as_ptr()) };
    Errno::result(result).map(drop)
}

/// What a call has written to the front of `room`. An empty room asks for a size, and gets nothing.
fn taken(result: isize, room: &mut [u8]) -> Result<&[u8], Errno> {
    let length = usize::try_from(Errno::result(result)?).unwrap_or(0);
    Ok(room.get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_where_the_file_system_keeps_any() {
        let file = tempfile::tempfile().unwrap();
        let (name, mut room) = (c"user.dwcp", [0; 64]);
        match set(&file, name, b"value") {
            Err(Errno::EOPNOTSUPP) => return,
            other => other.unwrap(),
        }
        assert_eq!(value(&file, name, &mut room), Ok(&b"value"[..]));
        let listed = list(&file, &mut room).unwrap();
        assert!(listed.split(|byte| *byte == 0).any(|listed| listed == name.to_bytes()), "{listed:?}");
        assert_eq!(value(&file, name, &mut [0; 2]), Err(Errno::ERANGE));
        assert_eq!(list(&file, &mut [0; 2]), Err(Errno::ERANGE));
        remove(&file, name).unwrap();
        assert_eq!(value(&file, name, &mut room), Err(Errno::ENODATA));
    }
}
