//! An S3 gateway behind TLS, with a certificate that nobody knows.

use std::net::SocketAddr;
use std::sync::Arc;

use aldaas_testbed::Testbed;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Passes on what it decrypts. It lives until the test ends.
pub struct TlsGateway {
    pub endpoint: String,
    /// The certificate, in PEM.
    pub certificate: String,
}

impl TlsGateway {
    pub fn start(bed: &Testbed) -> TlsGateway {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let gateway: SocketAddr = bed.s3().endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), gateway));
        });
        TlsGateway { endpoint: format!("https://localhost:{port}"), certificate: own.cert.pem() }
    }
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, gateway: SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut inside) = acceptor.accept(connection).await else { return };
            let mut outside = TcpStream::connect(gateway).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
        });
    }
}
