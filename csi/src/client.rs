//! A CSI client, as kubelet is one: for tests, benchmarks and checks by hand.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::proto::csi::identity_client::IdentityClient;
use crate::proto::csi::node_client;
use crate::proto::explain::explain_client::ExplainClient;

/// The calls on volumes.
pub type NodeClient = node_client::NodeClient<Channel>;

/// The Node service behind a unix socket. It connects when it is first used, and again when the server was restarted.
pub fn node(socket: &Path) -> NodeClient {
    NodeClient::new(channel(socket))
}

/// The Identity service behind a unix socket.
pub fn identity(socket: &Path) -> IdentityClient<Channel> {
    IdentityClient::new(channel(socket))
}

/// A connection to whatever is served on a unix socket.
pub fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The address means nothing: the connector goes to the socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    }))
}

/// The Explain service behind a unix socket.
pub fn explain(socket: &Path) -> ExplainClient<Channel> {
    ExplainClient::new(channel(socket))
}
