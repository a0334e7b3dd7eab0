//! The parsers of `/proc` and of what a VMM prints, for `crate::fuzz`.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jail_cmd::JailerVersion;

use super::stamp::{ProcessStamp, Stat};
use super::{failure_patterns, pidfd, procfs, starting_jailer};

/// A line of `stat` is about the process behind the last parenthesis.
pub(crate) fn stat(bytes: &[u8]) {
    let _ = pidfd::exit_code(bytes);
    let Some(stat) = Stat::parse(bytes) else { return };
    // A name can end neither the process nor its start time.
    let renamed = [b"7 (a) Z 1 (b) R ) ", bytes].concat();
    let again = Stat::parse(&renamed).unwrap();
    assert_eq!((again.runs, again.start_time), (stat.runs, stat.start_time));
}

/// The fields of `status` and of `fdinfo` are within one line.
pub(crate) fn status(bytes: &[u8]) {
    for key in ["Uid", "Gid", "NSpid", "Seccomp", "CapEff", "Name", "Pid", "mnt_id"] {
        let _ = procfs::field(bytes, key);
        let value = procfs::value(bytes, key).unwrap_or_default();
        assert!(!value.contains(&b'\n') && value.trim_ascii() == value);
    }
}

/// A command line is split at its NULs alone, and leads to one jail at most.
pub(crate) fn command_line(bytes: &[u8]) {
    let Some(words) = starting_jailer::words(bytes) else { return };
    let joined: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    assert!(bytes.ends_with(&joined));
    let jails = ["/base/firecracker/vm-1", "/base/firecracker/vm-2", "/base/other/vm-1"];
    let found = jails.iter().filter(|jail| starting_jailer::leads_to(&words, Path::new(jail)));
    assert!(found.count() <= 1);
}

/// The reason for a death is one short line without a control character.
pub(crate) fn last_words(bytes: &[u8]) {
    let (log, console) = bytes.split_at(bytes.len() / 2);
    let [log, console] = [log, console].map(String::from_utf8_lossy);
    if let (_, Some(reason)) = failure_patterns::find(&log, &console) {
        assert!(reason.len() < 600 && !reason.chars().any(char::is_control), "{reason:?}");
    }
}

/// A `vmm.json` that is read survives being written.
pub(crate) fn stamp(bytes: &[u8]) {
    if let Ok(stamp) = serde_json::from_slice::<ProcessStamp>(bytes) {
        let text = serde_json::to_vec(&stamp).unwrap();
        assert_eq!(serde_json::from_slice::<ProcessStamp>(&text).unwrap(), stamp);
    }
}

/// Parses the output of `--version`: a release, or a short error.
pub(crate) fn release(bytes: &[u8]) {
    match String::from_utf8_lossy(bytes).parse::<JailerVersion>() {
        Ok(release) => assert_eq!(release.to_string().parse(), Ok(release)),
        Err(error) => assert!(error.reason().len() < 200),
    }
}
