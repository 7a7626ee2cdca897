//! How images are made: features, object size, striping.

use std::ffi::c_int;
use std::ptr;

use crate::names::PoolName;

/// Single features of an image, as bits.
pub mod features {
    /// The image may have, or be, a child.
    pub const LAYERING: u64 = rbd_sys::RBD_FEATURE_LAYERING as u64;
    /// Stripes smaller than objects, or over several of them.
    pub const STRIPING: u64 = rbd_sys::RBD_FEATURE_STRIPINGV2 as u64;
    /// One writer at a time.
    pub const EXCLUSIVE_LOCK: u64 = rbd_sys::RBD_FEATURE_EXCLUSIVE_LOCK as u64;
    /// A bitmap of the objects that exist: removing costs a request per object written, not per object of its size.
    pub const OBJECT_MAP: u64 = rbd_sys::RBD_FEATURE_OBJECT_MAP as u64;
    /// Usage and differences from the bitmap alone.
    pub const FAST_DIFF: u64 = rbd_sys::RBD_FEATURE_FAST_DIFF as u64;
    /// Flattening reaches snapshots too.
    pub const DEEP_FLATTEN: u64 = rbd_sys::RBD_FEATURE_DEEP_FLATTEN as u64;
}

/// The features that images have unless told otherwise: layering, exclusive-lock, object-map, fast-diff, deep-flatten.
pub const DEFAULT_FEATURES: u64 = features::LAYERING
    | features::EXCLUSIVE_LOCK
    | features::OBJECT_MAP
    | features::FAST_DIFF
    | features::DEEP_FLATTEN;

/// Smallest and largest object that librbd takes.
const OBJECT_SIZES: std::ops::RangeInclusive<u64> = (4 << 10)..=(32 << 20);

/// How data is spread over objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripe {
    /// Bytes of one stripe unit: divides the object size.
    pub unit: u64,
    /// Objects to stripe over.
    pub count: u64,
}

/// How a blank image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// Feature bits, see [`features`].
    pub features: u64,
    /// Bytes per object, a power of two from 4 KiB to 32 MiB; the cluster's default (4 MiB) without one.
    pub object_size: Option<u64>,
    /// Striping; none without one.
    pub stripe: Option<Stripe>,
    /// Another pool for the data, e.g. an erasure-coded one.
    pub data_pool: Option<PoolName>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { features: DEFAULT_FEATURES, object_size: None, stripe: None, data_pool: None }
    }
}

/// How a clone is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneOptions {
    /// Feature bits, see [`features`]; layering is a must.
    pub features: u64,
    /// Bytes per object; the parent's without one. The first write to an object copies this much from the parent.
    pub object_size: Option<u64>,
}

impl Default for CloneOptions {
    fn default() -> Self {
        Self { features: DEFAULT_FEATURES, object_size: None }
    }
}

/// librbd's own options object, freed on drop.
pub(crate) struct ImageOptions(rbd_sys::rbd_image_options_t);

impl ImageOptions {
    fn new() -> Self {
        let mut raw = ptr::null_mut();
        // SAFETY: librbd allocates the object and writes its address.
        unsafe { rbd_sys::rbd_image_options_create(&mut raw) };
        Self(raw)
    }

    pub(crate) fn for_create(options: &CreateOptions) -> Result<Self, String> {
        let mut features = options.features;
        let mut native = Self::new();
        native.set(rbd_sys::RBD_IMAGE_OPTION_FORMAT, 2)?;
        if let Some(size) = options.object_size {
            native.set_order(size)?;
        }
        if let Some(stripe) = options.stripe {
            // Striping that is none needs no feature, and old clients can't read images that have it.
            if stripe.count != 1 || options.object_size != Some(stripe.unit) {
                features |= self::features::STRIPING;
            }
            native.set(rbd_sys::RBD_IMAGE_OPTION_STRIPE_UNIT, stripe.unit)?;
            native.set(rbd_sys::RBD_IMAGE_OPTION_STRIPE_COUNT, stripe.count)?;
        }
        if let Some(pool) = &options.data_pool {
            native.set_string(rbd_sys::RBD_IMAGE_OPTION_DATA_POOL, pool.as_str())?;
        }
        native.set(rbd_sys::RBD_IMAGE_OPTION_FEATURES, features)?;
        Ok(native)
    }

    pub(crate) fn for_clone(options: &CloneOptions) -> Result<Self, String> {
        let mut native = Self::new();
        native.set(rbd_sys::RBD_IMAGE_OPTION_CLONE_FORMAT, 2)?;
        native.set(rbd_sys::RBD_IMAGE_OPTION_FEATURES, options.features)?;
        if let Some(size) = options.object_size {
            native.set_order(size)?;
            // Without these librbd takes the parent's stripe unit, which doesn't divide a smaller object.
            native.set(rbd_sys::RBD_IMAGE_OPTION_STRIPE_UNIT, size)?;
            native.set(rbd_sys::RBD_IMAGE_OPTION_STRIPE_COUNT, 1)?;
        }
        Ok(native)
    }

    pub(crate) fn raw(&self) -> rbd_sys::rbd_image_options_t {
        self.0
    }

    fn set_order(&mut self, object_size: u64) -> Result<(), String> {
        if !object_size.is_power_of_two() || !OBJECT_SIZES.contains(&object_size) {
            return Err(format!("object size {object_size} is not a power of two from 4 KiB to 32 MiB"));
        }
        self.set(rbd_sys::RBD_IMAGE_OPTION_ORDER, object_size.trailing_zeros().into())
    }

    fn set(&mut self, option: u32, value: u64) -> Result<(), String> {
        // SAFETY: the object is live.
        let code = unsafe { rbd_sys::rbd_image_options_set_uint64(self.0, option as c_int, value) };
        if code < 0 { Err(format!("librbd refused option {option} = {value}")) } else { Ok(()) }
    }

    fn set_string(&mut self, option: u32, value: &str) -> Result<(), String> {
        let text = std::ffi::CString::new(value).map_err(|_| format!("{value:?} holds a NUL byte"))?;
        // SAFETY: the object is live, the text lives through the call and is copied.
        let code = unsafe { rbd_sys::rbd_image_options_set_string(self.0, option as c_int, text.as_ptr()) };
        if code < 0 { Err(format!("librbd refused option {option} = {value}")) } else { Ok(()) }
    }
}

impl Drop for ImageOptions {
    fn drop(&mut self) {
        // SAFETY: made by `rbd_image_options_create`, destroyed once.
        unsafe { rbd_sys::rbd_image_options_destroy(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_object_sizes_are_refused_before_ceph_sees_them() {
        for size in [0, 1, 4095, 3 << 20, 64 << 20] {
            let options = CloneOptions { object_size: Some(size), ..Default::default() };
            assert!(ImageOptions::for_clone(&options).is_err(), "{size}");
        }
        for size in [4 << 10, 64 << 10, 4 << 20, 32 << 20] {
            let options = CreateOptions { object_size: Some(size), ..Default::default() };
            assert!(ImageOptions::for_create(&options).is_ok(), "{size}");
        }
    }
}
