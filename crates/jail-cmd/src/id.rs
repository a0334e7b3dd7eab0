//! The id of a jail: [`JailId`].

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::text::text_type;
use crate::{Error, ErrorKind};

/// Longest id, in bytes.
const MAX_BYTES: usize = 64;

/// Longest name of a VM, in bytes: whoever names VMs must not fill records, errors and logs.
const VM_ID_MAX_BYTES: usize = 1024;

/// Bytes of a name that is too long which the error shows.
const SHOWN_BYTES: usize = 64;

/// Between the readable part and the digest of an encoded id.
const SEPARATOR: &str = "--";

/// Bytes of the SHA-256 that an encoded id carries, two hexadecimal digits each.
const DIGEST_BYTES: usize = 16;

/// Longest readable part of an encoded id, in bytes.
const READABLE_BYTES: usize = MAX_BYTES - SEPARATOR.len() - 2 * DIGEST_BYTES;

/// The id of a jail: `[A-Za-z0-9][A-Za-z0-9-]{0,63}`.
///
/// It is the jailer's `--id`, the name of the jail's directory and the name of its control group.
/// Each such id is accepted by every release; the jailer accepts more, such as `é`, and prints its
/// help for an id `-h`.
///
/// ```
/// use jail_cmd::JailId;
///
/// assert_eq!(JailId::new("vm-1")?.as_str(), "vm-1");
/// assert!(JailId::new("-h").is_err());
/// assert_eq!(JailId::for_vm("vm-1")?.as_str(), "vm-1");
/// assert_eq!(JailId::for_vm("tenant-a/vm_1")?.as_str(), "tenant-a-vm-1--800b589b6f8d603ea8b59f217d1e23b0");
/// # Ok::<(), jail_cmd::Error>(())
/// ```
///
/// Source: `validate_instance_id` in Firecracker's `src/utils/src/validators.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct JailId(String);

text_type!(JailId, check);

impl JailId {
    /// The jail of a VM, whatever the VM is called; two VMs never share one.
    ///
    /// A valid id is used as it is. Any other becomes a readable part, `--` and 32 hexadecimal
    /// digits of its SHA-256, and so does a valid id that already looks like that: what comes out
    /// as it went in and what comes out encoded never meet, and two encoded ids meet only where 128
    /// bits of SHA-256 do.
    ///
    /// # Errors
    /// The empty id, one of more than 1024 bytes, and no other.
    pub fn for_vm(vm_id: &str) -> Result<Self, Error> {
        if vm_id.is_empty() {
            return Err(Error::new(ErrorKind::Id, vm_id, "a VM's id is not empty"));
        }
        if vm_id.len() > VM_ID_MAX_BYTES {
            let mut shown = SHOWN_BYTES;
            while !vm_id.is_char_boundary(shown) {
                shown -= 1;
            }
            let shown = &vm_id[..shown];
            let reason = format!(
                "a VM's id has at most {VM_ID_MAX_BYTES} bytes; this is the beginning of {}",
                vm_id.len()
            );
            return Err(Error::new(ErrorKind::Id, shown, reason));
        }
        match Self::new(vm_id) {
            Ok(id) if !id.looks_encoded() => Ok(id),
            _ => Ok(Self(encode(vm_id))),
        }
    }

    /// Returns true if this id ends like an encoded id. [`for_vm`](Self::for_vm) never returns such
    /// an id unchanged.
    #[must_use]
    pub fn looks_encoded(&self) -> bool {
        let digest = self.0.rsplit_once(SEPARATOR).map(|(_, digest)| digest.as_bytes());
        digest.is_some_and(|digest| {
            digest.len() == 2 * DIGEST_BYTES
                && digest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

fn check(id: String) -> Result<String, Error> {
    let allowed = |at: usize, c: char| c.is_ascii_alphanumeric() || (at > 0 && c == '-');
    let reason = match id.char_indices().find(|&(at, c)| !allowed(at, c)) {
        _ if id.is_empty() => "it is empty".into(),
        _ if id.len() > MAX_BYTES => format!("it has {} bytes", id.len()),
        Some((at, c)) => format!("{c:?} at byte {at} is not allowed"),
        None => return Ok(id),
    };
    Err(Error::new(ErrorKind::Id, id, reason))
}

fn encode(vm_id: &str) -> String {
    let mut id = readable(vm_id);
    id.push_str(SEPARATOR);
    for byte in Sha256::digest(vm_id).iter().take(DIGEST_BYTES) {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// Returns the letters and digits of `vm_id`, with one hyphen for each run of other characters.
fn readable(vm_id: &str) -> String {
    let mut readable = String::new();
    let words = vm_id.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        if !readable.is_empty() {
            readable.push('-');
        }
        readable.push_str(word);
        if readable.len() >= READABLE_BYTES {
            break;
        }
    }
    readable.truncate(READABLE_BYTES);
    let end = readable.trim_end_matches('-').len();
    readable.truncate(end);
    if readable.is_empty() { "vm".into() } else { readable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_rules() {
        for id in ["a", "0", "vm-1", "A-", "a--b", &"a".repeat(64)] {
            assert_eq!(JailId::new(id).unwrap().as_str(), id);
        }
        for id in [
            "",
            "-",
            "-a",
            "-h",
            "--",
            "--help",
            "--daemonize",
            "../x",
            "a/b",
            "a\0b",
            "a b",
            "a.b",
            "a_b",
            "é",
            "a\n",
            &"a".repeat(65),
        ] {
            let error = JailId::new(id).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::Id, id));
            assert!(error.to_string().contains(&format!("{id:?}")), "{error}");
        }
    }

    #[test]
    fn for_vm_keeps_what_is_valid() {
        for id in ["a", "vm-1", "a--b", &"a".repeat(64)] {
            assert_eq!(JailId::for_vm(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn vm_ids_are_bounded() {
        assert!(JailId::for_vm(&"é".repeat(VM_ID_MAX_BYTES / 2)).is_ok());
        let error = JailId::for_vm(&"é".repeat(90_000)).unwrap_err();
        assert_eq!((error.kind(), error.value()), (ErrorKind::Id, &*"é".repeat(32)));
        assert!(error.to_string().contains("180000"), "{error}");
    }

    #[test]
    fn for_vm_refuses_bad_ids() {
        assert_eq!(JailId::for_vm("").unwrap_err().kind(), ErrorKind::Id);
        for id in ["..", "\0", "-h", "--", "é", " ", "\u{10ffff}", &"/".repeat(1024)] {
            assert!(JailId::for_vm(id).unwrap().looks_encoded(), "{id:?}");
        }
    }

    /// The form is on disk: a change of it orphans jails.
    #[test]
    fn for_vm_form_is_stable() {
        for (vm_id, jail_id) in [
            ("tenant-a/vm_1", "tenant-a-vm-1--800b589b6f8d603ea8b59f217d1e23b0"),
            ("../../x", "x--"),
            ("é", "vm--"),
            ("-h", "h--"),
            (&"a".repeat(65), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa--"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa--"),
        ] {
            let id = JailId::for_vm(vm_id).unwrap();
            assert!(id.as_str().starts_with(jail_id), "{vm_id:?} became {id}");
            assert!(id.as_str().len() <= MAX_BYTES && id.looks_encoded(), "{id}");
            JailId::new(id.as_str()).unwrap();
        }
    }

    #[test]
    fn for_vm_encodes_what_looks_encoded() {
        let once = JailId::for_vm("a/b").unwrap();
        let twice = JailId::for_vm(once.as_str()).unwrap();
        assert_ne!(once, twice);
        assert!(twice.looks_encoded());
        // One digit less, or a capital, and it is an id like any other.
        for id in [&once.as_str()[..once.as_str().len() - 1], &once.as_str().to_uppercase()] {
            assert_eq!(JailId::for_vm(id).unwrap().as_str(), id);
        }
    }
}
