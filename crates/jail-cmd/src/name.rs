//! The rules of a single name in a directory.

/// Longest name, in bytes (`NAME_MAX`).
pub(crate) const MAX_BYTES: usize = 255;

/// Returns the reason why `name` cannot be one printable component of a path.
pub(crate) fn fault(name: &str) -> Option<String> {
    match name {
        "" => Some("it is empty".into()),
        "." | ".." => Some("it is no name of its own".into()),
        _ if name.len() > MAX_BYTES => Some(format!("it has {} bytes", name.len())),
        _ => name
            .char_indices()
            .find(|&(_, c)| c == '/' || c.is_control())
            .map(|(at, c)| format!("{c:?} at byte {at} is not allowed")),
    }
}
