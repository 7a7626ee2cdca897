//! How full it is.

use aldaas_api::CloneName;
use serde_json::json;

use crate::{Result, Store, image_name};

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolUsage {
    /// Bytes that its users wrote.
    pub stored: u64,
    /// Bytes that its users can still write, by the cluster's space and by the pool's quota.
    pub max_avail: u64,
}

impl PoolUsage {
    /// From 0 (empty) to 1 (nothing can be written any more).
    pub fn full_ratio(&self) -> f64 {
        match self.stored.saturating_add(self.max_avail) {
            // Nothing is there and nothing fits in.
            0 => 1.0,
            all => self.stored as f64 / all as f64,
        }
    }
}

impl Store {
    /// How full the pool is. The figures lag some seconds behind, and of a pool that was just made there are none yet: a *not
    /// found* error.
    pub fn pool_usage(&self) -> Result<PoolUsage> {
        let pool = self.clones.pool();
        let stats = pool.stats()?;
        let quota = pool.cluster().mon_command_json(&json!({
            "prefix": "osd pool get-quota", "pool": self.pool.as_str(),
        }))?;
        let left = match quota["quota_max_bytes"].as_u64() {
            None | Some(0) => u64::MAX,
            Some(quota) => quota.saturating_sub(stats.stored),
        };
        Ok(PoolUsage { stored: stats.stored, max_avail: stats.max_avail.min(left) })
    }

    /// Bytes that a clone has written of its own.
    pub fn clone_usage(&self, name: &CloneName) -> Result<u64> {
        Ok(self.clones.open_read_only(&image_name(name)?)?.used_bytes()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_in_which_nothing_fits_is_full() {
        let ratio = |stored, max_avail| PoolUsage { stored, max_avail }.full_ratio();
        assert_eq!(ratio(0, 100), 0.0);
        assert_eq!(ratio(85, 15), 0.85);
        assert_eq!(ratio(7, 0), 1.0);
        assert_eq!(ratio(0, 0), 1.0);
    }
}
