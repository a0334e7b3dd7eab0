//! Each parser accepts or refuses arbitrary bytes; the corpus in `tests/corpus` is run by each test run.
#![expect(clippy::disallowed_methods, reason = "the corpus is read by path")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use proptest::prelude::*;

use crate::name::Name;
use crate::remove::Mount;
use crate::text::{Escaped, decode, encode};

/// Checks that a name is one component and survives as text.
fn name(bytes: &[u8]) {
    let Ok(name) = Name::try_from(OsStr::from_bytes(bytes)) else { return };
    let components: Vec<_> = Path::new(&name).components().collect();
    assert_eq!(components.len(), 1);
    assert!(matches!(components[0], std::path::Component::Normal(it) if it == name.as_os_str()));
    assert_eq!(decode(&name.to_string()).as_deref(), Some(bytes));
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
    }
}

/// A line is a mount at an absolute path, or refused.
fn mountinfo(bytes: &[u8]) {
    if let Some(mount) = Mount::parse(bytes) {
        assert!(mount.point.is_absolute());
        assert_eq!(mount.place(&mount.point), Some(mount.root.join("")));
    }
}

/// Text has no control characters, and decodes to the same bytes.
fn text(bytes: &[u8]) {
    let encoded = encode(bytes);
    assert_eq!(decode(&encoded).as_deref(), Some(bytes));
    assert!(!encoded.chars().any(char::is_control));
    assert_eq!(Escaped(Path::new(OsStr::from_bytes(bytes))).to_string(), encoded);
    if let Some(decoded) = std::str::from_utf8(bytes).ok().and_then(decode) {
        assert_eq!(decode(&encode(&decoded)), Some(decoded));
    }
}

/// A receipt that is read survives being written.
fn receipt(bytes: &[u8]) {
    #[cfg(feature = "serde")]
    if let Ok(receipt) = serde_json::from_slice::<crate::Receipt>(bytes) {
        let json = serde_json::to_vec(&receipt).unwrap();
        assert_eq!(serde_json::from_slice::<crate::Receipt>(&json).unwrap(), receipt);
    }
    #[cfg(not(feature = "serde"))]
    let _ = bytes;
}

#[test]
fn the_corpus_is_parsed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 4] =
        [("name", name), ("mountinfo", mountinfo), ("text", text), ("receipt", receipt)];
    for (target, parse) in targets {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            parse(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 4, "{target} has {files} files");
    }
}

/// Bytes that look like a line of the table of mounts.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| format!("{a}:{b}").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(prop::sample::select(b"/\\0147 a".to_vec()), 0..12),
    ];
    prop::collection::vec(field, 0..8).prop_map(|fields| fields.join(&b' '))
}

/// Bytes that look like a receipt: one of the corpus with some of its bytes changed.
fn nearly_a_receipt() -> impl Strategy<Value = Vec<u8>> {
    let seeds: [&[u8]; 2] = [
        include_bytes!("../tests/corpus/receipt/old"),
        include_bytes!("../tests/corpus/receipt/loan"),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(seeds.to_vec()), changes).prop_map(|(seed, changes)| {
        let mut bytes = seed.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn arbitrary_names(bytes: Vec<u8>) {
        name(&bytes);
    }

    #[test]
    fn arbitrary_mountinfo_lines(bytes in prop_oneof![any::<Vec<u8>>(), line()]) {
        mountinfo(&bytes);
    }

    #[test]
    fn arbitrary_bytes_survive_text(bytes: Vec<u8>) {
        text(&bytes);
    }

    #[test]
    fn arbitrary_receipts(bytes in nearly_a_receipt()) {
        receipt(&bytes);
    }
}
