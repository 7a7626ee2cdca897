//! What is said on the control socket: one JSON object per line each way.

use serde::{Deserialize, Serialize};

use crate::identity::ClusterIdentity;
use crate::spec::ImageSpec;

/// A request to the FUSE server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// Open the image and show it as a file. Repeating it is fine.
    Attach {
        /// Which image.
        spec: ImageSpec,
        /// Open it read-only.
        read_only: bool,
        /// Over a connection of its own, that may be cut off without any other image noticing.
        #[serde(default, skip_serializing_if = "is_false")]
        own_client: bool,
        /// The cluster that is meant. A server of another one refuses; without it, whichever is served is meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<ClusterIdentity>,
    },
    /// Flush and close the image; refused while its file is open. One that isn't attached is fine.
    Detach {
        /// Which image.
        spec: ImageSpec,
        /// Also while its file is open: all I/O fails from now on. A server from before that waits until it is closed.
        #[serde(default, skip_serializing_if = "is_false")]
        though_open: bool,
        /// As in `Attach`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<ClusterIdentity>,
    },
    /// Nobody wants any more what is written to the image: what waits and what comes fails at once. It stays attached.
    Abandon {
        /// Which image.
        spec: ImageSpec,
        /// As in `Attach`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<ClusterIdentity>,
    },
    /// What is attached?
    List {
        /// Only this image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<ImageSpec>,
        /// As in `Attach`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<ClusterIdentity>,
    },
    /// End when nothing is attached; with `force` in any case, after flushing.
    Stop {
        /// End even though images are attached.
        force: bool,
        /// Only end a server that was started on demand.
        on_demand_only: bool,
    },
}

/// An attached image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Which image.
    pub spec: ImageSpec,
    /// Opened read-only.
    pub read_only: bool,
    /// Opened over a connection of its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub own_client: bool,
    /// The cluster cut the connection off: all I/O fails.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut_off: bool,
    /// Bytes.
    pub size: u64,
    /// How often its file is open (1 where a loop device sits on it).
    pub open_files: u32,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// An answer of the FUSE server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The image is attached.
    Attached(Attached),
    /// The image is not attached (any more).
    Detached,
    /// Nothing more is written to the image.
    Abandoned,
    /// All attached images.
    List {
        /// Process id of the server.
        pid: u32,
        /// The images.
        images: Vec<Attached>,
    },
    /// The server is another cluster's.
    OtherCluster {
        /// Which cluster it serves.
        serves: ClusterIdentity,
    },
    /// The server ends now.
    Stopping {
        /// Its process id.
        pid: u32,
    },
    /// The server stays, since it has work or wasn't started on demand.
    Staying,
    /// The request failed.
    Failed {
        /// Why, for humans.
        message: String,
        /// librbd's errno, where there is one.
        errno: Option<i32>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_wire_form_is_what_older_clients_send() {
        let line = r#"{"op":"attach","spec":{"pool":"p","namespace":"n","image":"i"},"read_only":true}"#;
        let request: Request = serde_json::from_str(line).unwrap();
        assert_eq!(
            request,
            Request::Attach {
                spec: ImageSpec::new("p", "n", "i"),
                read_only: true,
                own_client: false,
                cluster: None
            }
        );
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        let list = Request::List { spec: None, cluster: None };
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"{"op":"list"}"#);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in ".*") {
            let _ = serde_json::from_str::<Request>(&line);
            let _ = serde_json::from_str::<Response>(&line);
        }
    }
}
