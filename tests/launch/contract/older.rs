//! The differences between releases.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use jail_cmd::Feature;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use testkit::skip;

use super::RELEASES;
use super::rig::{Outcome, Rig};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn older_releases_match_the_table() {
    let (official, acted) = Rig::older(&RELEASES);
    if official.is_empty() {
        skip(
            "older_releases_match_the_table (official)",
            "no older official jailers here; see MICROVM_OLD_JAILERS",
        );
    }
    for rig in official.iter().chain(&acted) {
        let has = |feature| rig.release.supports(feature);
        let refused = |outcome: &Outcome, message: &str| fails_like(rig, outcome, message);

        let mut short_help = rig.launch();
        "-h".clone_into(&mut short_help.id);
        match (short_help.run(), has(Feature::ShortHelp)) {
            (outcome, true) => assert_eq!(
                (outcome.code, short_help.root().exists()),
                (Some(0), false),
                "{}",
                rig.name
            ),
            (outcome, false) => outcome.assert_started((&rig.name, "-h")),
        }

        let plain = rig.launch();
        plain.run().assert_started(&rig.name);
        assert_eq!(
            plain.root().join("firecracker.pid").exists(),
            has(Feature::PidFileAlways),
            "{}",
            rig.name
        );

        let node = rig.launch();
        let kvm = node.stage("dev").join("kvm");
        mknod(&kvm, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(10, 232)).unwrap();
        refused(&node.run(), "File exists (os error 17)");

        let mut other_name = rig.launch();
        other_name.exec_file = rig.scratch.join("other");
        fs::copy(rig.binaries.stub(), &other_name.exec_file).unwrap();
        match (other_name.run(), has(Feature::AnyExecName)) {
            (outcome, true) => outcome.assert_started((&rig.name, "exec name")),
            (outcome, false) => refused(&outcome, "must contain"),
        }

        // CVE-2026-1386: root writes where the VM's user points. A planted hard link is the same.
        let linked = rig.launch();
        let victim = rig.scratch.file("victim", "precious");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&victim, linked.stage("").join("firecracker")).unwrap();
        let outcome = linked.run();
        let kept = fs::read_to_string(&victim).map_err(|err| err.kind());
        if has(Feature::ChecksExecCopy) {
            refused(&outcome, "Too many levels of symbolic links (os error 40)");
            assert_eq!(kept, Ok("precious".to_owned()), "{}", rig.name);
        } else {
            assert_eq!(
                kept,
                Err(ErrorKind::InvalidData),
                "{}: it was not overwritten by the program",
                rig.name
            );
        }
        fs::remove_file(&victim).unwrap();
    }
}

/// Asserts a refusal in the form of the release: a message with a second line, or a panic that aborts.
#[track_caller]
fn fails_like(rig: &Rig, outcome: &Outcome, message: &str) {
    if rig.release.supports(Feature::PlainErrors) {
        return outcome.assert_refused(&rig.name, message);
    }
    assert_eq!(outcome.signal, Some(Signal::SIGABRT as i32), "{}: {outcome:?}", rig.name);
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("Jailer error: "));
    assert!(
        line.is_some_and(|line| line.contains(message)),
        "{}: {message:?}: {outcome:?}",
        rig.name
    );
    assert!(outcome.stderr.contains("panicked at "), "{}: {outcome:?}", rig.name);
}
