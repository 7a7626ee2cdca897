//! Makes the plugin known to kubelet: a socket of its own in `plugins_registry`, over which kubelet asks where CSI is served.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::DRIVER;
use crate::proto::registration::registration_server::{Registration as Service, RegistrationServer};
use crate::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::socket::SocketFile;

/// The CSI versions that are served.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// Why the plugin can't be made known.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The socket.
    #[error("make the registration socket {}: {error}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Something that is no socket is in its place.
    #[error("{} is there and is no socket: remove it, or give another path", .0.display())]
    NotASocket(PathBuf),
    /// While it was served.
    #[error("serve the registration socket: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// What kubelet said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registered {
    /// It has not asked yet.
    #[default]
    NotYet,
    /// It knows us.
    Yes,
    /// It refused us.
    Refused(String),
}

/// The plugin's entry at kubelet.
#[derive(Clone, Default)]
pub struct Registration {
    said: Arc<RwLock<Registered>>,
}

impl Registration {
    /// What kubelet said last.
    pub fn said(&self) -> Registered {
        self.said.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why pods can't be served because of it; nothing: they can.
    pub fn not_ready(&self) -> Option<String> {
        match self.said() {
            Registered::Yes => None,
            Registered::NotYet => Some("kubelet has not registered the plugin yet".into()),
            Registered::Refused(error) => Some(format!("kubelet refused the plugin: {error}")),
        }
    }

    /// Takes the place of a socket that an earlier plugin left; what comes back serves until `stop` and then removes it.
    /// `endpoint` is the CSI socket as kubelet sees it.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn serve(
        &self,
        socket: &Path,
        endpoint: &Path,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = Result<(), RegistrationError>> + use<>, RegistrationError> {
        remove_stale(socket)?;
        let wrong = |error| RegistrationError::Socket { path: socket.to_owned(), error };
        let listener = UnixListener::bind(socket).map_err(wrong)?;
        let place = Place(SocketFile::of(socket));
        let entry = Entry { endpoint: endpoint.display().to_string(), said: self.said.clone() };
        Ok(async move {
            // Removed even when serving fails or is dropped: kubelet takes the file for a living plugin.
            let _place = place;
            let server = tonic::transport::Server::builder().add_service(RegistrationServer::new(entry));
            let incoming = crate::authority::connections(listener);
            Ok(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?)
        })
    }
}

fn remove_stale(socket: &Path) -> Result<(), RegistrationError> {
    let wrong = |error| RegistrationError::Socket { path: socket.to_owned(), error };
    match std::fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(socket).map_err(wrong),
        Ok(_) => Err(RegistrationError::NotASocket(socket.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(wrong(error)),
    }
}

/// The socket's file, as long as it is served.
struct Place(SocketFile);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.remove();
    }
}

struct Entry {
    endpoint: String,
    said: Arc<RwLock<Registered>>,
}

#[tonic::async_trait]
impl Service for Entry {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: DRIVER.into(),
            endpoint: self.endpoint.clone(),
            supported_versions: VERSIONS.map(Into::into).into(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        let said = match status.plugin_registered {
            true => Registered::Yes,
            false => Registered::Refused(status.error),
        };
        match &said {
            Registered::Refused(error) => tracing::error!(error, "kubelet refused the plugin"),
            _ => tracing::info!(endpoint = self.endpoint, "kubelet registered the plugin"),
        }
        *self.said.write().unwrap_or_else(PoisonError::into_inner) = said;
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registration::registration_client::RegistrationClient;

    #[tokio::test]
    async fn kubelet_learns_where_csi_is_served_and_says_whether_it_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("csi.aldaas.dev-reg.sock");
        // What an earlier plugin left when it was killed.
        drop(UnixListener::bind(&socket).unwrap());
        let (registration, stop) = (Registration::default(), CancellationToken::new());
        let served = registration.serve(&socket, Path::new("/var/lib/csi.sock"), stop.clone()).unwrap();
        let served = tokio::spawn(served);
        let mut kubelet = RegistrationClient::new(crate::client::channel(&socket));
        let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER));
        assert_eq!(
            (info.endpoint.as_str(), info.supported_versions),
            ("/var/lib/csi.sock", vec!["1.0.0".into()])
        );
        assert!(registration.not_ready().unwrap().contains("not registered"));

        let refused = RegistrationStatus { plugin_registered: false, error: "another has this name".into() };
        kubelet.notify_registration_status(refused).await.unwrap();
        assert_eq!(registration.not_ready().unwrap(), "kubelet refused the plugin: another has this name");
        let taken = RegistrationStatus { plugin_registered: true, error: String::new() };
        kubelet.notify_registration_status(taken).await.unwrap();
        assert_eq!(registration.not_ready(), None);

        drop(kubelet);
        stop.cancel();
        served.await.unwrap().unwrap();
        assert!(!socket.exists(), "kubelet would take it for a living plugin");
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reg.sock");
        std::fs::write(&path, "mine").unwrap();
        let refused = Registration::default().serve(&path, Path::new("/csi.sock"), CancellationToken::new());
        assert!(matches!(refused.err(), Some(RegistrationError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_predecessor_that_ends_leaves_its_successors_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("reg.sock");
        let serve = || {
            let stop = CancellationToken::new();
            let served = Registration::default().serve(&socket, Path::new("/csi.sock"), stop.clone());
            (tokio::spawn(served.unwrap()), stop)
        };
        let ((old, stop_old), (new, stop_new)) = (serve(), serve());
        stop_old.cancel();
        old.await.unwrap().unwrap();
        let mut kubelet = RegistrationClient::new(crate::client::channel(&socket));
        kubelet.get_info(InfoRequest {}).await.unwrap();
        drop(kubelet);
        stop_new.cancel();
        new.await.unwrap().unwrap();
        assert!(!socket.exists(), "its own it takes away");
    }
}
