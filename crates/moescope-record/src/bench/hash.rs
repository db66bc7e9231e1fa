//! Hashes of what a configuration computed.

/// FNV-1a over numbers: to see whether two lists are equal, not to withstand an attack.
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    pub(crate) fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}
