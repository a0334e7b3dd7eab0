//! Parsers on arbitrary bytes. `PROPTEST_CASES=10000000 cargo test --release -p jail-cgroup --all-features fuzz` is the long
//! run; every run begins with `tests/corpus/`.

#![expect(clippy::disallowed_methods, reason = "the corpus is read by name")]

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::dir::Dir;
use crate::host::{self, membership};
use crate::leaf::fuzz as leaf;
use crate::plan::GroupPath;
use crate::{CgroupVersion, Controller, CpuSet, Host, HostTexts};

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| std::fs::read(file).unwrap()).collect()
});

/// Arbitrary bytes, or a file of the corpus with a few bytes replaced and its end cut off.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..6);
    let damaged = (any::<prop::sample::Index>(), changes, any::<prop::sample::Index>());
    let damaged = damaged.prop_map(|(file, changes, end)| {
        let mut bytes = file.get(&CORPUS).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if end.index(4) == 0 {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..120), damaged]
}

fn mountinfo(bytes: &[u8]) {
    for mount in host::parse_mountinfo(bytes) {
        assert!(mount.path().is_absolute() && mount.root().is_absolute());
    }
}

fn host_texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let host = Host::from_texts(&HostTexts {
        mountinfo: bytes,
        self_cgroup: bytes,
        controllers: &text,
        subtree_control: &text,
        nodes: &[(0, &text)],
        ..HostTexts::default()
    });
    let _ = host.usable(CgroupVersion::V2, Controller::Memory);
}

fn groups_of_a_process(bytes: &[u8]) {
    membership::bound_to_v1(bytes);
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        if let Some(path) = membership::path_of(bytes, version, &Controller::ALL) {
            assert!(path.is_absolute());
        }
    }
}

fn cpu_set(bytes: &[u8]) {
    if let Ok(set) = String::from_utf8_lossy(bytes).parse::<CpuSet>() {
        assert_eq!(set.to_string().parse::<CpuSet>().unwrap(), set);
    }
}

fn group_path(bytes: &[u8]) {
    if let Ok(path) = GroupPath::new(OsStr::from_bytes(bytes)) {
        assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))));
    }
}

#[cfg(feature = "serde")]
fn records(bytes: &[u8]) {
    if let Ok(limits) = serde_json::from_slice::<crate::Limits>(bytes) {
        let _ = limits.check();
    }
    if let Ok(id) = serde_json::from_slice::<crate::LeafId>(bytes) {
        assert!(id.owner().is_none_or(|owner| (1..=512).contains(&owner.len())));
        let text = serde_json::to_vec(&id).unwrap();
        assert_eq!(serde_json::from_slice::<crate::LeafId>(&text).unwrap(), id);
    }
}

#[cfg(not(feature = "serde"))]
fn records(_bytes: &[u8]) {}

const PARSERS: [fn(&[u8]); 9] = [
    mountinfo,
    host_texts,
    groups_of_a_process,
    cpu_set,
    group_path,
    records,
    leaf::keyed_files,
    leaf::stats,
    leaf::owner,
];

#[test]
fn the_corpus_is_parsed() {
    assert!(CORPUS.len() > 10);
    for bytes in CORPUS.iter() {
        PARSERS.iter().for_each(|parse| parse(bytes));
    }
}

#[test]
fn streamed_lines_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let held = Dir::open_system(dir.path()).unwrap();
    proptest!(ProptestConfig::with_cases(256), |(bytes in bytes())| {
        std::fs::write(dir.path().join("file"), &bytes).unwrap();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        held.lines("file", |line| {
            lines.push(line.to_owned());
            ControlFlow::<()>::Continue(())
        }).unwrap();
        let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        if expected.last().is_some_and(|last| last.is_empty()) {
            expected.pop();
        }
        expected.retain(|line| line.len() <= 256);
        prop_assert_eq!(lines, expected);
    });
}

proptest! {
    #[test]
    fn mountinfo_never_panics(bytes in bytes()) { mountinfo(&bytes); }

    #[test]
    fn host_texts_never_panic(bytes in bytes()) { host_texts(&bytes); }

    #[test]
    fn groups_never_panic(bytes in bytes()) { groups_of_a_process(&bytes); }

    #[test]
    fn cpu_sets_never_panic(bytes in bytes()) { cpu_set(&bytes); }

    #[test]
    fn group_paths_never_panic(bytes in bytes()) { group_path(&bytes); }

    #[test]
    fn records_never_panic(bytes in bytes()) { records(&bytes); }

    #[test]
    fn keyed_files_never_panic(bytes in bytes()) { leaf::keyed_files(&bytes); }

    #[test]
    fn stats_never_panic(bytes in bytes()) { leaf::stats(&bytes); }

    #[test]
    fn owners_never_panic(bytes in bytes()) { leaf::owner(&bytes); }
}
