//! The network namespace of a VM: [`Network`].

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The network namespace of a VM's jailer and VMM (`network_namespaces(7)`).
///
/// A process that escapes Firecracker, but not the jail, has the network of its namespace, and the abstract Unix sockets
/// there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Network {
    /// A new namespace with nothing but a loopback interface that is down. The namespace ends with the VM, unless
    /// somebody holds it: [`Vm::network_namespace`](crate::Vm::network_namespace) returns it as a descriptor.
    #[default]
    Isolated,
    /// An existing namespace: a file such as `/run/netns/tenant-a`, or `/proc/<pid>/ns/net`. The path must be absolute.
    Namespace(PathBuf),
    /// The launcher's namespace, shared with all that runs there.
    Host,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolated => f.write_str("a new namespace"),
            Self::Namespace(path) => write!(f, "the namespace {}", path.display()),
            Self::Host => f.write_str("the launcher's namespace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_survive_their_text() {
        for network in [Network::Isolated, Network::Namespace("/n".into()), Network::Host] {
            let text = serde_json::to_string(&network).unwrap();
            assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network, "{network}");
        }
        assert_eq!(Network::default(), Network::Isolated);
    }
}
