//! Memory that a running guest gains and gives back.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Smallest block, in MiB, and the default.
const BLOCK_MIB: u64 = 2;

/// Smallest slot, in MiB, and the default.
const SLOT_MIB: u64 = 128;

/// A virtio-mem device: memory beside the guest's own, none of it plugged at the start. Firecracker 1.14.0.
///
/// A running VM's memory is plugged with [`Api::set_hotplug_memory`](crate::Api::set_hotplug_memory).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryHotplug {
    total_size_mib: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    block_size_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    slot_size_mib: Option<u64>,
}

impl MemoryHotplug {
    /// Up to `mib` MiB, a multiple of the slot's size.
    #[must_use]
    pub fn new(mib: u64) -> Self {
        Self { total_size_mib: mib, block_size_mib: None, slot_size_mib: None }
    }

    /// The unit in which the guest plugs memory, in MiB: 2 (the default) or a higher power of two.
    #[must_use]
    pub fn block_mib(mut self, mib: u64) -> Self {
        self.block_size_mib = Some(mib);
        self
    }

    /// The unit in which the host adds memory, in MiB: 128 (the default) or more, a multiple of the block's size.
    #[must_use]
    pub fn slot_mib(mut self, mib: u64) -> Self {
        self.slot_size_mib = Some(mib);
        self
    }

    /// Returns the whole memory, in MiB.
    pub(crate) fn total_mib(&self) -> u64 {
        self.total_size_mib
    }

    pub(super) fn check(&self) -> Result<()> {
        let refused = |because: String| {
            Err(Error::invalid("plan the memory hotplug", because)
                .hinted("Give a block of 2 MiB or a higher power of two, a slot of 128 MiB or more in whole blocks, and whole slots."))
        };
        let block = self.block_size_mib.unwrap_or(BLOCK_MIB);
        let slot = self.slot_size_mib.unwrap_or(SLOT_MIB);
        let total = self.total_size_mib;
        if block < BLOCK_MIB || !block.is_power_of_two() {
            return refused(format!(
                "its block has {block} MiB, which is no power of two from {BLOCK_MIB} on"
            ));
        }
        if slot < SLOT_MIB || slot.checked_rem(block) != Some(0) {
            return refused(format!(
                "its slot has {slot} MiB, which is no multiple of {block} from {SLOT_MIB} on"
            ));
        }
        if total < slot
            || total.checked_rem(slot) != Some(0)
            || total.checked_mul(1 << 20).is_none()
        {
            return refused(format!(
                "it has {total} MiB, which is no multiple of the slot's {slot} MiB"
            ));
        }
        Ok(())
    }
}
