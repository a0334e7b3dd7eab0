//! The parsers of a leaf's files, for `crate::fuzz`.

use super::owner::{Claim, Owner};
use super::pressure::Pressure;
use super::{keyed, stats};

pub(crate) fn keyed_files(bytes: &[u8]) {
    for line in keyed::lines(bytes) {
        let _ = keyed::parse::<u32>(line);
        let _ = keyed::device(line);
        let _ = keyed::field::<f32>(line, "avg10");
        let _ = keyed::field::<u64>(line, "rbytes");
    }
    let _ = keyed::number(bytes, "oom_kill");
}

pub(crate) fn stats(bytes: &[u8]) {
    let _ = Pressure::parse(bytes);
    let _ = stats::io_stat(bytes);
    let _ = stats::blkio(bytes, bytes);
}

pub(crate) fn owner(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(owner) = Owner::new(&text) {
        let claim = Claim::parse(Some(bytes.to_vec()));
        assert_eq!(claim.is_of(&owner), text.as_bytes() == bytes);
        assert!(claim.to_string().len() < 8 * bytes.len() + 100);
    }
}
