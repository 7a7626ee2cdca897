//! HTTP for the object store's client. The SDK's own panics where an image holds no certificate authorities, as those of
//! database engines often don't, and has no way to take any certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{ANSWER, CONNECT};

/// What `install` puts beside the program: the certificate authorities of the image it came from.
pub const AUTHORITIES: &str = "ca-certificates.crt";

/// The certificate authorities beside the program `exe`.
#[must_use]
pub fn authorities_beside(exe: &Path) -> PathBuf {
    exe.with_file_name(AUTHORITIES)
}

/// A client. With `insecure` it takes any certificate.
pub fn client(insecure: bool) -> SharedHttpClient {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = if insecure { anybody(&provider) } else { known(&provider) };
    http_client_fn(move |settings, _| connector(settings, config.clone()))
}

fn connector(settings: &HttpConnectorSettings, config: ClientConfig) -> SharedHttpConnector {
    let mut tcp = legacy::connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(settings.connect_timeout().unwrap_or(CONNECT)));
    let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    let https = https.https_or_http().enable_http1().wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new()).build(https);
    SharedHttpConnector::new(Connector { client, answer: settings.read_timeout().unwrap_or(ANSWER) })
}

#[derive(Debug)]
struct Connector {
    client: Client<HttpsConnector<legacy::connect::HttpConnector>, SdkBody>,
    answer: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, answer) = (self.client.clone(), self.answer);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|err| ConnectorError::user(err.into()))?;
            let answered = tokio::time::timeout(answer, client.request(request)).await;
            let answer = answered
                .map_err(|_| ConnectorError::timeout(format!("no answer for {} s", answer.as_secs()).into()))?
                .map_err(|err| ConnectorError::io(err.into()))?;
            let answer = answer.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(answer).map_err(|err| ConnectorError::other(err.into(), None))
        })
    }
}

/// Whom this machine knows, and those beside the program. One that cannot be read is one less.
fn known(provider: &Arc<CryptoProvider>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let ours = std::env::current_exe().and_then(|exe| fs::read(authorities_beside(&exe))).unwrap_or_default();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&ours).filter_map(Result::ok));
    builder(provider).with_root_certificates(roots).with_no_client_auth()
}

fn anybody(provider: &Arc<CryptoProvider>) -> ClientConfig {
    let anybody = Arc::new(Anybody(provider.signature_verification_algorithms));
    builder(provider).dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
}

fn builder(provider: &Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    builder.with_safe_default_protocol_versions().expect("the provider knows TLS 1.2 and 1.3")
}

/// Takes any certificate, but only from who has its key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
