//! CSI over a unix socket: each call is parsed, done by one call of the domain, and its error mapped to a code.
//!
//! - [`request`]: what comes in, checked once
//! - [`call`]: deadlines, and work that outlives its caller
//! - [`node`], [`identity`]: the two services

pub mod call;
pub mod identity;
pub mod node;
pub mod request;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::proto::csi::identity_server::IdentityServer;
use crate::proto::csi::node_server::NodeServer;
use crate::proto::explain::explain_server::ExplainServer;
use crate::reaper::explain::ExplainService;
use crate::socket::SocketFile;

/// Serves CSI until `stop`, then lets the calls that run end.
///
/// # Errors
/// When the socket can't be served.
pub async fn serve(
    listener: UnixListener,
    identity: identity::IdentityService,
    node: node::NodeService,
    explain: ExplainService,
    stop: CancellationToken,
) -> Result<()> {
    let calls = node.calls.clone();
    Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(NodeServer::new(node))
        .add_service(ExplainServer::new(explain))
        .serve_with_incoming_shutdown(crate::authority::connections(listener), stop.cancelled_owned())
        .await
        .context("serve CSI")?;
    calls.finish().await;
    Ok(())
}

/// Makes a socket that root alone may use. One that a killed process left is replaced, one that is served is not.
///
/// # Errors
/// When somebody else serves there, or the directory can't be made.
pub async fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let what = || format!("make the socket {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(what)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::from(Errno::ADDRINUSE)).with_context(what);
        }
        std::fs::remove_file(path).with_context(what)?;
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(what)?;
    Ok((listener, SocketFile::of(path)))
}
