//! The kernel's keys of a user.

use std::fs;

/// Returns the number of keys and keyrings that the kernel holds for `uid` (`/proc/key-users`, proc_key_users(5)): 0 without a
/// line, and on a kernel without keys.
///
/// # Panics
/// If the file has another form.
#[must_use]
pub fn keys_of(uid: u32) -> u64 {
    let users = fs::read_to_string("/proc/key-users").unwrap_or_default();
    let line = users.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{uid}: ")));
    line.map_or(0, |line| {
        // Usage count, then keys and instantiated keys.
        let keys = line.split_whitespace().nth(1).and_then(|keys| keys.split('/').next());
        keys.and_then(|keys| keys.parse().ok()).expect("a number of keys")
    })
}
