//! The little of ceph.conf and keyrings that the kernel's client has to be told: monitors and a key.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use aldaas_rbd::ConnectOptions;

use crate::error::Error;

/// What krbd needs to reach the cluster.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// Monitors, comma-separated, as the kernel wants them.
    pub monitors: String,
    /// True where only the messenger v2 addresses are known: the kernel must be told.
    pub messenger_v2: bool,
    /// The secret key in base64; none where cephx is off.
    pub secret: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret.as_ref().map(|_| "(not shown)");
        let mut shown = f.debug_struct("Access");
        shown.field("monitors", &self.monitors).field("messenger_v2", &self.messenger_v2);
        shown.field("secret", &secret).finish()
    }
}

/// The configuration file that is meant.
pub(crate) fn path(options: &ConnectOptions) -> PathBuf {
    options.conf.clone().unwrap_or_else(|| PathBuf::from("/etc/ceph/ceph.conf"))
}

/// The configuration as librados reads it: overrides, then `[client.<user>]`, `[client]`, `[global]`.
pub(crate) struct Settings<'a> {
    options: &'a ConnectOptions,
    conf: Sections,
    sections: [String; 3],
}

impl<'a> Settings<'a> {
    pub fn read(options: &'a ConnectOptions) -> std::io::Result<Self> {
        let conf = Sections::parse(&std::fs::read_to_string(path(options))?);
        let sections = [format!("client.{}", options.user), "client".to_owned(), "global".to_owned()];
        Ok(Self { options, conf, sections })
    }

    pub fn get(&self, key: &str) -> Option<String> {
        let over = self.options.overrides.iter().find(|(k, _)| normal_key(k) == key);
        let over = over.map(|(_, value)| value.as_str());
        over.or_else(|| self.sections.iter().find_map(|s| self.conf.get(s, key))).map(str::to_owned)
    }
}

/// Finds the monitors and the user's key.
pub(crate) fn access(options: &ConnectOptions) -> Result<Access, Error> {
    let lacks = |detail: &str| Error::CephConf { path: path(options), detail: detail.to_owned() };
    let settings = Settings::read(options).map_err(|e| lacks(&format!("read: {e}")))?;
    let get = |key: &str| settings.get(key);
    let hosts =
        get("mon_host").ok_or_else(|| lacks("has no `mon host`: krbd needs the monitors' addresses"))?;
    let (monitors, messenger_v2) = monitors(&hosts).ok_or_else(|| lacks("`mon host` names no address"))?;
    if get("auth_client_required").is_some_and(|a| a.trim() == "none") {
        return Ok(Access { monitors, messenger_v2, secret: None });
    }
    let secret = match get("key") {
        Some(key) => key,
        None => secret(options, get("keyring"))?,
    };
    Ok(Access { monitors, messenger_v2, secret: Some(secret) })
}

fn secret(options: &ConnectOptions, keyring: Option<String>) -> Result<String, Error> {
    let (user, cluster) = (&options.user, "ceph");
    let configured = keyring.map(|k| expand(&k, user));
    let places = match (&options.keyring, configured) {
        (Some(path), _) => vec![path.clone()],
        (None, Some(list)) => list.split([',', ' ']).filter(|p| !p.is_empty()).map(PathBuf::from).collect(),
        (None, None) => vec![
            PathBuf::from(format!("/etc/ceph/{cluster}.client.{user}.keyring")),
            PathBuf::from(format!("/etc/ceph/{cluster}.keyring")),
            PathBuf::from("/etc/ceph/keyring"),
        ],
    };
    let section = format!("client.{user}");
    let found = places.iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        Sections::parse(&text).get(&section, "key").map(str::to_owned)
    });
    found.ok_or_else(|| {
        let path = places.first().cloned().unwrap_or_default();
        Error::CephConf { path, detail: format!("no readable key of {section}; give its keyring") }
    })
}

fn expand(text: &str, user: &str) -> String {
    text.replace("$cluster", "ceph")
        .replace("$name", &format!("client.{user}"))
        .replace("$type", "client")
        .replace("$id", user)
}

/// Ceph takes `mon host`, `mon_host` and `mon-host` for the same.
fn normal_key(key: &str) -> String {
    let words: Vec<&str> = key.split([' ', '_', '-', '\t']).filter(|w| !w.is_empty()).collect();
    words.join("_").to_lowercase()
}

/// An INI file: section → key → value.
#[derive(Debug, Default)]
struct Sections(HashMap<String, HashMap<String, String>>);

impl Sections {
    fn parse(text: &str) -> Self {
        let mut sections = Self::default();
        let mut current = "global".to_owned();
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
                current = name.0.trim().to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                let value = value.split(" #").next().unwrap_or_default().trim().trim_matches('"').to_owned();
                sections.0.entry(current.clone()).or_default().insert(normal_key(key), value);
            }
        }
        sections
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.0.get(section)?.get(key).map(String::as_str)
    }
}

/// `mon host` in all its forms → the kernel's comma-separated list, and whether it is of messenger v2 addresses.
/// Version 1 is preferred: every kernel speaks it.
fn monitors(hosts: &str) -> Option<(String, bool)> {
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    for piece in addresses(hosts) {
        let address = piece.split('/').next().unwrap_or_default();
        if let Some(address) = address.strip_prefix("v2:") {
            v2.push(address.to_owned());
        } else if let Some(address) = address.strip_prefix("v1:") {
            v1.push(address.to_owned());
        } else if address.ends_with(":3300") {
            v2.push(address.to_owned());
        } else if !address.is_empty() {
            v1.push(address.to_owned());
        }
    }
    let only_v2 = v1.is_empty();
    let chosen = if only_v2 { v2 } else { v1 };
    (!chosen.is_empty()).then(|| (chosen.join(","), only_v2))
}

/// `mon host` in all its forms → every `host:port` that it may mean, for comparing.
pub(crate) fn endpoints(hosts: &str) -> Vec<String> {
    let ports = |address: &str| {
        let host_ends = address.rfind(']').unwrap_or(0);
        if address[host_ends..].contains(':') {
            vec![address.to_owned()]
        } else {
            vec![format!("{address}:3300"), format!("{address}:6789")]
        }
    };
    let plain = |piece: &String| {
        let address = piece.split('/').next().unwrap_or_default();
        let address = address.strip_prefix("v2:").or_else(|| address.strip_prefix("v1:")).unwrap_or(address);
        if address.is_empty() { Vec::new() } else { ports(address) }
    };
    addresses(hosts).iter().flat_map(plain).collect()
}

/// Splits at commas, semicolons and blanks; brackets group the addresses of one monitor, unless they hold an IPv6
/// address.
fn addresses(hosts: &str) -> Vec<String> {
    let pieces = hosts.split([',', ';', ' ', '\t']).filter(|p| !p.is_empty());
    pieces
        .map(|piece| {
            let versioned = |p: &str| p.starts_with("v1:") || p.starts_with("v2:");
            let inner = piece.strip_prefix('[').filter(|p| versioned(p)).unwrap_or(piece);
            // `[v2:[::1]:3300/0` closes its own brackets; only a last unmatched one is the group's.
            let opened = inner.matches('[').count();
            let closed = inner.matches(']').count();
            if closed > opened {
                inner.strip_suffix(']').unwrap_or(inner).to_owned()
            } else {
                inner.to_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_mon_host_is_understood() {
        for (hosts, expect) in [
            ("10.0.0.1", ("10.0.0.1", false)),
            ("10.0.0.1:6789", ("10.0.0.1:6789", false)),
            ("10.0.0.1, 10.0.0.2;10.0.0.3", ("10.0.0.1,10.0.0.2,10.0.0.3", false)),
            ("[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]", ("10.0.0.1:6789", false)),
            (
                "[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0] [v2:10.0.0.2:3300,v1:10.0.0.2:6789]",
                ("10.0.0.1:6789,10.0.0.2:6789", false),
            ),
            ("v2:10.0.0.1:3300", ("10.0.0.1:3300", true)),
            ("10.0.0.1:3300", ("10.0.0.1:3300", true)),
            ("[::1]:6789", ("[::1]:6789", false)),
            ("[v2:[::1]:3300/0,v1:[::1]:6789/0]", ("[::1]:6789", false)),
            ("mon.example", ("mon.example", false)),
        ] {
            assert_eq!(monitors(hosts), Some((expect.0.to_owned(), expect.1)), "{hosts}");
        }
        assert_eq!(monitors(" , "), None);
    }

    #[test]
    fn monitors_and_key_are_found_through_the_configured_keyring() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("ceph.conf");
        let keyring = dir.path().join("ceph.client.admin.keyring");
        let pattern = dir.path().join("$cluster.$name.keyring");
        std::fs::write(&conf, format!("[global]\nmon-host = 10.0.0.1\nkeyring = {}\n", pattern.display()))
            .unwrap();
        std::fs::write(&keyring, "[client.admin]\n\tkey = c2VjcmV0\n\tcaps mon = \"allow *\"\n").unwrap();
        let options = ConnectOptions { conf: Some(conf), ..ConnectOptions::default() };
        let access = access(&options).unwrap();
        assert_eq!((access.monitors.as_str(), access.secret.as_deref()), ("10.0.0.1", Some("c2VjcmV0")));
    }

    #[test]
    fn endpoints_are_the_same_however_they_are_written() {
        for hosts in ["10.0.0.1", "[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]", "10.0.0.1:3300 10.0.0.1:6789"] {
            assert_eq!(endpoints(hosts), ["10.0.0.1:3300", "10.0.0.1:6789"], "{hosts}");
        }
        assert_eq!(endpoints("v2:[::1]:3300/0"), ["[::1]:3300"]);
        assert_eq!(endpoints("[::1]"), ["[::1]:3300", "[::1]:6789"]);
    }

    #[test]
    fn the_secret_is_never_shown() {
        let access = Access { monitors: "m".into(), messenger_v2: false, secret: Some("c2VjcmV0".into()) };
        assert!(!format!("{access:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("ceph.conf");
        let options = ConnectOptions { conf: Some(conf.clone()), ..ConnectOptions::default() };
        std::fs::write(&conf, "[global]\nfsid = x\n").unwrap();
        assert!(access(&options).unwrap_err().to_string().contains("mon host"));
        std::fs::write(&conf, "[global]\nmon host = h\nkeyring = /nonexistent\n").unwrap();
        assert!(access(&options).unwrap_err().to_string().contains("keyring"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in ".*") {
            let _ = (monitors(&text), endpoints(&text));
            let _ = Sections::parse(&text);
        }
    }
}
