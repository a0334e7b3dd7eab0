//! The description of a VM: files, limits, user, network namespace, machine and options.

pub(crate) mod drive;
pub(crate) mod firecracker;
pub(crate) mod jail_spec;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod pmem;
pub(crate) mod restore;

pub use jail_spec::{JailSpec, User};
pub use network::Network;

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};
    use std::str::FromStr;

    use serde::Serialize;

    use super::drive::DriveKind;
    use super::machine::{CacheType, CpuTemplate, HugePages, IoEngine, MmdsVersion};
    use crate::vmm::PidNamespace;
    use crate::{Afterwards, DeviceKind, ErrorKind, SnapshotKind, VmRuntimeError};

    fn check<T>(all: &[T])
    where
        T: Copy + Debug + Display + PartialEq + Serialize + FromStr<Err = VmRuntimeError>,
    {
        for value in all {
            let text = value.to_string();
            assert_eq!(text.parse::<T>().unwrap(), *value);
            assert_eq!(serde_json::to_value(value).unwrap(), text);
        }
        let error = "\u{1b}x".parse::<T>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.hint().unwrap().contains(&all[0].to_string()), "{error}");
    }

    #[test]
    fn printed_values_are_parsed() {
        check(Afterwards::ALL);
        check(CacheType::ALL);
        check(CpuTemplate::ALL);
        check(DeviceKind::ALL);
        check(DriveKind::ALL);
        check(HugePages::ALL);
        check(IoEngine::ALL);
        check(MmdsVersion::ALL);
        check(PidNamespace::ALL);
        check(SnapshotKind::ALL);
    }
}
