//! The known error sentences of the jailer and of Firecracker, and the search for a sentence in the output.

use super::diagnosis::Diagnosis;

/// Words that stand in one sentence, and what that means; the first row that fits counts.
///
/// Sources: `src/jailer/src/main.rs` and `src/firecracker/src` of releases 1.0.0 to 1.16.1, and what those releases
/// printed when each of these was brought about.
pub(super) const PATTERNS: &[(&[&str], Diagnosis)] = &[
    // The jailer, in the order of what it does.
    (&["Found argument"], Diagnosis::RefusedArgument),
    (&["rguments parsing error"], Diagnosis::RefusedArgument),
    (&["Failed to parse arguments"], Diagnosis::RefusedArgument),
    (&["Invalid instance ID"], Diagnosis::RefusedArgument),
    (&["Invalid uid"], Diagnosis::RefusedArgument),
    (&["Invalid gid"], Diagnosis::RefusedArgument),
    (&["Invalid format for"], Diagnosis::RefusedArgument),
    (&["Invalid limit value"], Diagnosis::RefusedArgument),
    (&["Invalid resource argument"], Diagnosis::RefusedArgument),
    (&["Cgroup invalid file"], Diagnosis::RefusedArgument),
    (&["invalid cgroup version"], Diagnosis::RefusedArgument),
    (&["Parent cgroup path is invalid"], Diagnosis::RefusedArgument),
    (&["is not a file"], Diagnosis::RefusedArgument),
    (&["is not a directory"], Diagnosis::RefusedArgument),
    (&["Failed to canonicalize path"], Diagnosis::RefusedArgument),
    (&["Invalid filename"], Diagnosis::RefusedArgument),
    (&["Text file busy"], Diagnosis::StillRunning),
    (&["Detected hard link"], Diagnosis::LinkedExecCopy),
    (&["Failed to open", "Too many levels of symbolic links"], Diagnosis::LinkedExecCopy),
    (&["Failed to join network namespace"], Diagnosis::NetworkNamespace),
    (&["Failed to set limit for resource"], Diagnosis::ResourceLimit),
    (&["Hierarchy not found"], Diagnosis::CgroupMissing),
    (&["Controller", "is unavailable"], Diagnosis::CgroupMissing),
    (&["configurations not found in"], Diagnosis::CgroupMissing),
    (&["Failed to move process to cgroup"], Diagnosis::CgroupRefused),
    (&["Failed to inherit cgroups"], Diagnosis::CgroupRefused),
    (&["Failed to write to", "/sys/fs/cgroup"], Diagnosis::CgroupRefused),
    (&["Failed to write to cgroups file"], Diagnosis::CgroupRefused),
    // Up to 1.10 it unwraps that one.
    (&["value: Write(", "/sys/fs/cgroup"], Diagnosis::CgroupRefused),
    (&["via mknod", "File exists"], Diagnosis::NodeExists),
    (&["via mknod"], Diagnosis::NodeRefused),
    (&["Failed to open file", ".pid", "File exists"], Diagnosis::PidFileExists),
    // What else it opens by that name is the namespace's file.
    (&["Failed to open file", "No such file or directory"], Diagnosis::NetworkNamespace),
    (&["Failed to exec into Firecracker"], Diagnosis::Exec),
    // Firecracker.
    (&["Failed to open the API socket"], Diagnosis::SocketExists),
    (&["Failed to bind and run the HTTP server"], Diagnosis::SocketExists),
    (&["Unable to open or read from the configuration file"], Diagnosis::Config),
    (&["Invalid JSON"], Diagnosis::Config),
    (&["Error creating KVM object"], Diagnosis::Kvm),
    (&["KVM", "Permission denied"], Diagnosis::Kvm),
    (&["/dev/kvm"], Diagnosis::Kvm),
    (&["The kernel file cannot be opened"], Diagnosis::Kernel),
    (&["Unable to read kernel image"], Diagnosis::GuestMemory),
    (&["Cannot load kernel"], Diagnosis::Kernel),
    (&["The initrd file cannot be opened"], Diagnosis::Kernel),
    (&["lock device error"], Diagnosis::Drive),
    (&["Error manipulating the backing file"], Diagnosis::Drive),
    (&["Cannot open the block device backing file"], Diagnosis::Drive),
    (&["Open tap device failed"], Diagnosis::Tap),
    (&["TUN/TAP"], Diagnosis::Tap),
    (&["/dev/net/tun"], Diagnosis::Tap),
    (&["etwork device"], Diagnosis::Tap),
    (&["bad syscall"], Diagnosis::Seccomp),
    (&["eccomp error"], Diagnosis::Seccomp),
    (&["Cannot allocate memory"], Diagnosis::Memory),
    (&["from one single json failed"], Diagnosis::Config),
    // Either, at any point.
    (&["No space left on device"], Diagnosis::NoSpace),
    (&["Disk quota exceeded"], Diagnosis::NoSpace),
    (&["Operation not permitted"], Diagnosis::Privilege),
];

/// Finds the sentence that gives the reason, without log prefixes, and the meaning of the sentence.
///
/// The log comes first; the console has the reason only if Firecracker had no log yet. A sentence comes before the same
/// in Rust's own terms (`Error: MknodDev(…)`). If none is known, the last that sounds like a failure is taken, or else
/// the last line of stderr.
pub(super) fn find(log: &str, console: &str) -> (Option<Diagnosis>, Option<String>) {
    let streams = [log, console].map(|text| {
        let sentences = text.lines().filter_map(sentence);
        sentences.partition::<Vec<_>, _>(|sentence| !sentence.starts_with("Error: "))
    });
    let fits = |sentence: &str, row: &[&str]| row.iter().all(|words| sentence.contains(words));
    for sentences in streams.iter().flat_map(|(words, terms)| [words, terms]) {
        for (row, diagnosis) in PATTERNS {
            if let Some(sentence) = sentences.iter().find(|sentence| fits(sentence, row)) {
                return (Some(*diagnosis), Some(sentence.clone()));
            }
        }
    }
    let sounds = |sentence: &&String| {
        let sentence = sentence.to_ascii_lowercase();
        ["error", "fail", "panic", "cannot", "invalid"].iter().any(|word| sentence.contains(word))
    };
    let [(words, terms), (on_console, _)] = &streams;
    let reason = words.iter().rfind(sounds).or_else(|| terms.last());
    let reason = reason.or_else(|| on_console.iter().rfind(sounds)).cloned();
    let unlogged = |line: &&str| logged(line) == *line;
    (None, reason.or_else(|| log.lines().filter(unlogged).filter_map(sentence).next_back()))
}

/// Bytes of a sentence that are kept: whoever wrote it may be hostile.
const LONGEST: usize = 512;

/// Returns a line without log and panic prefixes; `None` for a line without information.
fn sentence(line: &str) -> Option<String> {
    // Release 1.0.0 prints the NUL of a C string.
    let line: String = line.chars().filter(|char| !char.is_control()).collect();
    let line = line.trim();
    // An old panic has the text in quotes, on the line with the place: `panicked at 'Jailer error: …', src/…`. A newer
    // panic has the text on the next line.
    let line = match line.split_once("panicked at ") {
        Some((_, rest)) => rest.strip_prefix('\'')?.rsplit_once("', ")?.0,
        None => logged(line),
    };
    let line = line.strip_prefix("Jailer error: ").unwrap_or(line);
    let says_nothing = line.is_empty()
        || [
            "note: ",
            "stack backtrace:",
            "Running Firecracker",
            "For more information",
            "Error: ()",
        ]
        .iter()
        .any(|begin| line.starts_with(begin))
        || line.contains("exit_code=");
    (!says_nothing).then(|| match line.char_indices().find(|(at, _)| *at > LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    })
}

/// Returns a line of Firecracker's log, `2026-01-02T03:04:05.678 [id:thread] …`, without the prefix.
fn logged(line: &str) -> &str {
    let Some((time, rest)) = line.split_once(" [") else { return line };
    let is_time = time.len() > 19
        && time.starts_with(|char: char| char.is_ascii_digit())
        && !time.contains(' ');
    match rest.split_once("] ") {
        Some((_, said)) if is_time => said,
        _ => line,
    }
}
