//! Which cluster is meant: a run directory, its server and the kernel's mappings each belong to one.

use std::fmt;
use std::path::PathBuf;

use aldaas_rbd::ConnectOptions;
use serde::{Deserialize, Serialize};

use crate::cephconf;

/// What is known of a cluster without asking it: read from its configuration file, so that telling two clusters apart
/// costs no connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterIdentity {
    /// Its id, where it is known: then nothing else counts.
    pub fsid: Option<String>,
    /// `host:port` of its monitors.
    pub monitors: Vec<String>,
    /// The configuration file, canonical.
    pub conf: Option<PathBuf>,
}

impl ClusterIdentity {
    /// As the configuration says. One that can't be read is no error here: whoever connects says why.
    pub(crate) fn of(options: &ConnectOptions) -> Self {
        let path = cephconf::path(options);
        let settings = cephconf::Settings::read(options).ok();
        let get = |key: &str| settings.as_ref().and_then(|s| s.get(key));
        Self {
            fsid: get("fsid").map(|fsid| fsid.trim().to_lowercase()),
            monitors: get("mon_host").map(|hosts| cephconf::endpoints(&hosts)).unwrap_or_default(),
            conf: path.canonicalize().ok(),
        }
    }

    /// The same cluster, as far as both know: by id, else by a monitor that both name, else by configuration file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.fsid, &other.fsid) {
            (Some(one), Some(another)) => one == another,
            _ if self.monitors.iter().any(|monitor| other.monitors.contains(monitor)) => true,
            _ => self.conf.is_some() && self.conf == other.conf,
        }
    }
}

impl fmt::Display for ClusterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.fsid, self.monitors.as_slice(), &self.conf) {
            (Some(fsid), _, _) => write!(f, "cluster {fsid}"),
            (None, [_, ..], _) => write!(f, "the cluster of monitors {}", self.monitors.join(",")),
            (None, [], Some(conf)) => write!(f, "the cluster of {}", conf.display()),
            (None, [], None) => f.write_str("an unknown cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(fsid: Option<&str>, hosts: &str, conf: Option<&str>) -> ClusterIdentity {
        ClusterIdentity {
            fsid: fsid.map(str::to_owned),
            monitors: cephconf::endpoints(hosts),
            conf: conf.map(PathBuf::from),
        }
    }

    #[test]
    fn clusters_are_told_apart_by_id_then_by_monitors_then_by_file() {
        let a = identity(Some("a"), "10.0.0.1", Some("/a"));
        assert!(a.is(&identity(Some("a"), "10.9.9.9", Some("/b"))), "a cluster may move");
        assert!(!a.is(&identity(Some("b"), "10.0.0.1", Some("/a"))), "or be made anew");
        assert!(a.is(&identity(None, "10.0.0.2,v1:10.0.0.1:6789/0", None)));
        assert!(!a.is(&identity(None, "10.0.0.1:7000", None)), "several clusters on one host");
        assert!(a.is(&identity(None, "", Some("/a"))));
        assert!(!a.is(&identity(None, "", None)) && !identity(None, "", None).is(&identity(None, "", None)));
    }
}
