//! What a caller asks for: which image, how to attach it, with which file system, and what it got.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Longest `<pool>%<rados namespace>%<image>`: it must fit in one directory entry (255 bytes).
const MAX_NAME: usize = 250;

/// One RBD image by name. An empty `namespace` is the pool's default rados namespace.
///
/// ```
/// let spec = aldaas_volume::ImageSpec::new("aldaas", "clone", "csi-1");
/// assert_eq!(spec.to_string(), "aldaas/clone/csi-1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Pool that holds the image.
    pub pool: String,
    /// Rados namespace inside the pool; empty for the default one.
    pub namespace: String,
    /// Image name.
    pub image: String,
}

impl ImageSpec {
    /// The image `image` in `pool`'s rados namespace `namespace`.
    pub fn new(pool: impl Into<String>, namespace: impl Into<String>, image: impl Into<String>) -> Self {
        Self { pool: pool.into(), namespace: namespace.into(), image: image.into() }
    }

    /// The name of this image's directory and file below the run directory: `<pool>%<namespace>%<image>`.
    ///
    /// # Errors
    /// [`Error::InvalidName`] where a part can't be part of a file name or holds the separator.
    pub fn file_name(&self) -> Result<String, Error> {
        let invalid = |reason| Error::InvalidName { spec: self.to_string(), reason };
        if self.pool.is_empty() || self.image.is_empty() {
            return Err(invalid("pool and image must not be empty"));
        }
        for part in [&self.pool, &self.namespace, &self.image] {
            if part.contains(['%', '/', '@', ',', ' ']) || part.chars().any(char::is_control) {
                return Err(invalid("`%`, `/`, `@`, `,`, spaces and control characters are not allowed"));
            }
        }
        let name = format!("{}%{}%{}", self.pool, self.namespace, self.image);
        if name.len() > MAX_NAME {
            return Err(invalid("pool, rados namespace and image together are longer than 248 bytes"));
        }
        if name.starts_with('.') {
            return Err(invalid("a pool's name must not begin with a dot"));
        }
        Ok(name)
    }

    /// The image whose [`file_name`](Self::file_name) is `name`; `None` when it is nobody's.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let mut parts = name.split('%');
        let (pool, namespace, image) = (parts.next()?, parts.next()?, parts.next()?);
        let spec = Self::new(pool, namespace, image);
        (parts.next().is_none() && spec.file_name().is_ok()).then_some(spec)
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.pool, self.image)
        } else {
            write!(f, "{}/{}/{}", self.pool, self.namespace, self.image)
        }
    }
}

/// How an image becomes a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// krbd where the kernel has it, else FUSE.
    #[default]
    Auto,
    /// The kernel's own RBD client.
    Krbd,
    /// `aldaas-fuse` and a loop device.
    Fuse,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Krbd => "krbd",
            Self::Fuse => "fuse",
        })
    }
}

impl FromStr for AttachMode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "krbd" => Ok(Self::Krbd),
            "fuse" => Ok(Self::Fuse),
            _ => Err(format!("`{s}` is no way to attach an image; use auto, krbd or fuse")),
        }
    }
}

/// The file system on an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext4, the default.
    #[default]
    Ext4,
    /// XFS (at least 300 MiB).
    Xfs,
}

impl Filesystem {
    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Filesystem {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "ext4" => Ok(Self::Ext4),
            "xfs" => Ok(Self::Xfs),
            _ => Err(format!("`{s}` is no file system that aldaas makes; use ext4 or xfs")),
        }
    }
}

/// What [`Node::create`](crate::Node::create) makes on a blank image.
#[derive(Debug, Clone)]
pub struct NewVolume<'a> {
    /// File system to make.
    pub filesystem: Filesystem,
    /// Marker to leave in `.aldaas/`.
    pub marker: &'a crate::Marker,
    /// Owner (uid, gid) of `data/`.
    pub owner: (u32, u32),
}

/// What [`Node::open`](crate::Node::open) expects to find on an image.
#[derive(Debug, Clone)]
pub struct OpenVolume<'a> {
    /// The marker the file system must carry.
    pub expect: &'a crate::Marker,
    /// Attach and mount read-only.
    pub read_only: bool,
    /// Attach through a client that no other image shares, so that fencing it (a blocklist entry for the address of
    /// the image's watcher) stops this image alone.
    pub own_client: bool,
    /// More options for the file system, comma-separated pieces as in mount(8) `-o`; `noatime`, `nodev` and
    /// `nosuid` are always set.
    pub mount_options: Vec<String>,
}

impl<'a> OpenVolume<'a> {
    /// A writable open that expects `expect`.
    pub fn writable(expect: &'a crate::Marker) -> Self {
        Self { expect, read_only: false, own_client: false, mount_options: Vec::new() }
    }

    /// A read-only open that expects `expect`.
    pub fn read_only(expect: &'a crate::Marker) -> Self {
        Self { expect, read_only: true, own_client: false, mount_options: Vec::new() }
    }
}

/// How an image is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    pub read_only: bool,
    pub own_client: bool,
}

impl How {
    pub fn writable() -> Self {
        Self { read_only: false, own_client: false }
    }
}

impl From<&OpenVolume<'_>> for How {
    fn from(want: &OpenVolume<'_>) -> Self {
        Self { read_only: want.read_only, own_client: want.own_client }
    }
}

/// An image mounted on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Which image.
    pub spec: ImageSpec,
    /// Its block device.
    pub device: PathBuf,
    /// What the engine sees: the bind mount of `data/`.
    pub data: PathBuf,
    /// The root of the image's file system, which holds `.aldaas/`.
    pub root: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_that_would_leave_the_run_directory_is_refused() {
        for bad in ["../x", "a/b", "a%b", "a@b", "", "a\nb", "a,b"] {
            assert!(ImageSpec::new("p", "n", bad).file_name().is_err(), "{bad:?}");
        }
        assert!(ImageSpec::new("..", "", "x").file_name().is_err());
        assert!(ImageSpec::new("p", "", "x".repeat(300)).file_name().is_err());
    }

    proptest! {
        #[test]
        fn a_file_name_leads_back_to_its_image(pool in "[a-z0-9_.-]{1,20}", ns in "[a-z0-9_.-]{0,20}",
                                               image in "[a-z0-9_.-]{1,60}") {
            let spec = ImageSpec::new(pool, ns, image);
            if let Ok(name) = spec.file_name() {
                prop_assert_eq!(ImageSpec::from_file_name(&name), Some(spec));
            }
        }

        #[test]
        fn any_file_name_is_parsed_without_panic(name in ".*") {
            if let Some(spec) = ImageSpec::from_file_name(&name) {
                prop_assert_eq!(spec.file_name().unwrap(), name);
            }
        }
    }
}
