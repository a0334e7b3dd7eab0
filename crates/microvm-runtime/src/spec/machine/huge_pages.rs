//! The size of the pages behind the guest's memory.

use crate::text_form::text_form;
use serde::{Deserialize, Serialize};

/// The pages of hugetlbfs that back the guest's memory. Firecracker 1.7.0.
///
/// The host's pool (`/proc/sys/vm/nr_hugepages`) must have as many free pages as the guest touches: Firecracker reserves
/// none, and is killed by SIGBUS if the pool is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HugePages {
    /// Pages of 2 MiB. The guest's memory must be an even number of MiB.
    #[serde(rename = "2M")]
    Mib2,
}

text_form!(HugePages, "size of huge pages", { Mib2 => "2M" });
