//! Reports of removals.

/// The report of a removal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RemoveReport {
    /// The number of files, nodes, links, sockets and directories removed, the tree's own directory included; 0 without a
    /// tree.
    pub entries: u64,
}
