//! Names that nobody else has.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::name::Name;
use crate::sys::{self, Errno};

/// `prefix`, as much of `name` as fits, `-` and 64 random bits.
pub(crate) fn unique(prefix: &str, name: &Name) -> Result<Name, Errno> {
    let suffix = format!("-{:016x}", sys::random()?);
    let room = Name::MAX_BYTES.saturating_sub(prefix.len() + suffix.len());
    let name = name.as_os_str().as_bytes();
    let bytes = [prefix.as_bytes(), &name[..name.len().min(room)], suffix.as_bytes()].concat();
    // Still a name: shortened, and with nothing in front that has a '/'.
    Name::try_from(OsString::from_vec(bytes)).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_still_fits() {
        let long = Name::try_from("n".repeat(255)).unwrap();
        let unique = [unique(".staging-", &long).unwrap(), unique(".staging-", &long).unwrap()];
        assert_ne!(unique[0], unique[1]);
        assert!(unique.iter().all(|name| name.as_os_str().len() == 255));
    }
}
