//! The parsers of a jail's files, for `crate::fuzz`.

use jail_cmd::JailId;

use super::record::Record;
use super::uid_pool::Holder;
use crate::spec::JailSpec;

/// A `jail.json` that is read survives being written.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
        let text = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
    }
}

/// A spec that is read survives being written.
pub(crate) fn spec(bytes: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<JailSpec>(bytes) {
        let text = serde_json::to_vec(&spec).unwrap();
        assert_eq!(serde_json::from_slice::<JailSpec>(&text).unwrap(), spec);
    }
}

/// A lease belongs to the jail of its first line or to none.
pub(crate) fn lease(bytes: &[u8]) {
    let holder = Holder::parse(bytes);
    if let Ok(id) = holder.jail.parse::<JailId>() {
        assert!(bytes.starts_with(id.as_str().as_bytes()));
    }
}
