//! A certificate of our own: made, renewed and signed by the replica that holds the Lease, kept in a Secret, served by all of
//! them, and trusted by the API server through `caBundle`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aldaas_daemon::election::{Election, Office};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::Authority;
use super::plan::{Policy, Step, Stored, StoredCertificate, plan};
use super::{Keeper, Pair, validity};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const AUTHORITY_SINCE: &str = "ca-since";
const CERTIFICATE_SINCE: &str = "tls-since";
const NAMES: &str = "tls-names";
/// The label that says that a Secret is ours to write.
const MANAGED: (&str, &str) = ("app.kubernetes.io/managed-by", "aldaas-webhook");

/// Where it is kept, and what for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of Secret and Lease.
    pub namespace: String,
    /// The Secret; the Lease has its name too.
    pub secret: String,
    /// Who we are among the replicas.
    pub identity: String,
    /// The names under which the API server calls.
    pub names: Vec<String>,
    /// The MutatingWebhookConfiguration that must trust it.
    pub registration: String,
    /// How long what is valid.
    pub policy: Policy,
    /// How often it is looked at.
    pub period: Duration,
}

struct Own {
    settings: Settings,
    secrets: Api<Secret>,
    registrations: Api<MutatingWebhookConfiguration>,
    keeper: Arc<Keeper>,
}

type Data = BTreeMap<String, ByteString>;

/// Keeps it, until `stop`.
pub async fn keep(client: Client, settings: Settings, keeper: Arc<Keeper>, stop: CancellationToken) {
    let office = Office {
        name: settings.secret.clone(),
        duration: settings.period * 3,
        renewal: settings.period,
        look: settings.period,
    };
    let election = Election::new(client.clone(), &settings.namespace, &settings.identity, office);
    let secrets = Api::namespaced(client.clone(), &settings.namespace);
    let own = Own { settings, secrets, registrations: Api::all(client), keeper };
    let work = async {
        let mut last = String::new();
        loop {
            let error = match own.tick(&election).await {
                // There may be more to do at once.
                Ok(true) => continue,
                Ok(false) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            if !error.is_empty() && error != last {
                tracing::warn!(error, "the certificate can't be looked after; trying again");
            }
            last = error;
            tokio::time::sleep(own.settings.period).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), election.release()).await;
}

impl Own {
    /// Serves what is stored; and does the next step, if it is ours to do. Whether there was one.
    async fn tick(&self, election: &Election) -> Result<bool> {
        let name = &self.settings.secret;
        let secret = self.secrets.get_opt(name).await.with_context(|| format!("read Secret {name}"))?;
        if let Some(pair) = secret.as_ref().and_then(pair_of)
            && let Err(error) = self.keeper.offer(pair, Timestamp::now())
        {
            tracing::warn!(%error, secret = name, "the certificate in the Secret can't be served");
        }
        if !election.hold().await.with_context(|| format!("take Lease {name}"))? {
            return Ok(false);
        }
        let told = self.tell(secret.as_ref()).await?;
        let (now, policy) = (Timestamp::now(), &self.settings.policy);
        let stored = secret.as_ref().and_then(|secret| self.stored(secret));
        let Some(step) = plan(stored.as_ref(), now, policy, told) else { return Ok(false) };
        self.write(secret, step, now).await?;
        Ok(true)
    }

    /// What the Secret holds; nothing where that makes no sense.
    fn stored(&self, secret: &Secret) -> Option<Stored> {
        let data = secret.data.as_ref()?;
        let authorities = &data.get(AUTHORITIES)?.0;
        let newest = CertificateDer::from_pem_slice(authorities).ok()?;
        let text = |key: &str| data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        let since = |key: &str| text(key).and_then(|text| text.parse().ok());
        let certificate = pair_of(secret).and_then(|pair| {
            super::server_config(&pair).ok()?;
            let der = CertificateDer::from_pem_slice(&pair.certificate).ok()?;
            Some(StoredCertificate {
                validity: validity(&pair.certificate, CERTIFICATE).ok()?,
                since: since(CERTIFICATE_SINCE)?,
                by_newest: signed(&der, &newest)?,
                names: text(NAMES) == Some(&self.settings.names.join(",")),
            })
        });
        // Without its key an authority signs nothing any more.
        data.get(AUTHORITY_KEY)?;
        Some(Stored {
            authority: validity(authorities, AUTHORITIES).ok()?,
            authority_since: since(AUTHORITY_SINCE)?,
            others: CertificateDer::pem_slice_iter(authorities).count() > 1,
            certificate,
        })
    }

    async fn write(&self, secret: Option<Secret>, step: Step, now: Timestamp) -> Result<()> {
        let (name, settings) = (&self.settings.secret, &self.settings);
        if let Some(secret) = &secret
            && secret.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED.0)).map(String::as_str)
                != Some(MANAGED.1)
        {
            bail!(
                "Secret {name} is not ours to write (it lacks the label {}={}): mount it and name its directory with \
                 --tls-dir, or give another name with --tls-secret",
                MANAGED.0,
                MANAGED.1
            );
        }
        tracing::info!(?step, secret = name, "the certificate");
        let data = secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
        let data = next(data, step, now, settings)?;
        let version = secret.and_then(|secret| secret.metadata.resource_version);
        let first = version.is_none();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                // A writer whose lease was over meanwhile is refused.
                resource_version: version,
                labels: Some(BTreeMap::from([(MANAGED.0.to_owned(), MANAGED.1.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let written = match first {
            true => self.secrets.create(&PostParams::default(), &secret).await,
            false => self.secrets.replace(name, &PostParams::default(), &secret).await,
        };
        written.map(drop).with_context(|| format!("write Secret {name}"))
    }

    /// Tells the API server whom to trust; whether it knows all of them by now.
    async fn tell(&self, secret: Option<&Secret>) -> Result<bool> {
        let bundle = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(AUTHORITIES));
        let Some(bundle) = bundle else { return Ok(false) };
        let name = &self.settings.registration;
        let reading = || format!("read MutatingWebhookConfiguration {name}");
        // Where nobody is registered nobody needs to know.
        let Some(found) = self.registrations.get_opt(name).await.with_context(reading)? else {
            return Ok(true);
        };
        let all = found.webhooks.unwrap_or_default();
        let behind: Vec<_> =
            all.iter().filter(|one| one.client_config.ca_bundle.as_ref() != Some(bundle)).collect();
        if behind.is_empty() {
            return Ok(true);
        }
        let webhooks: Vec<_> = behind
            .iter()
            .map(|one| json!({ "name": one.name, "clientConfig": { "caBundle": bundle } }))
            .collect();
        let patch = Patch::Strategic(json!({ "webhooks": webhooks }));
        let patching = || format!("write caBundle of MutatingWebhookConfiguration {name}");
        self.registrations.patch(name, &PatchParams::default(), &patch).await.with_context(patching)?;
        tracing::info!(registration = name, "the API server knows whom to trust");
        Ok(true)
    }
}

/// What the Secret holds after a step.
fn next(mut data: Data, step: Step, now: Timestamp, settings: &Settings) -> Result<Data> {
    let mut put = |key: &str, value: Vec<u8>| drop(data.insert(key.to_owned(), ByteString(value)));
    if matches!(step, Step::Begin | Step::NewAuthority) {
        let authority = Authority::make(now, &settings.policy)?;
        put(AUTHORITY_KEY, authority.key.into_bytes());
        put(AUTHORITY_SINCE, now.to_string().into_bytes());
        let before = match step {
            Step::NewAuthority => data.remove(AUTHORITIES).map(|bytes| bytes.0).unwrap_or_default(),
            _ => Vec::new(),
        };
        let bundle = [authority.certificate.into_bytes(), before].concat();
        data.insert(AUTHORITIES.to_owned(), ByteString(bundle));
    }
    let newest = data.get(AUTHORITIES).and_then(|bytes| first(&bytes.0)).context("there is no authority")?;
    if matches!(step, Step::Begin | Step::NewCertificate) {
        let key = data.get(AUTHORITY_KEY).context("the authority has no key")?;
        let authority = Authority { certificate: newest, key: String::from_utf8(key.0.clone())? };
        let pair = authority.sign(&settings.names, now, &settings.policy)?;
        let text = |value: String| ByteString(value.into_bytes());
        data.extend([
            (CERTIFICATE.to_owned(), ByteString(pair.certificate)),
            (KEY.to_owned(), ByteString(pair.key)),
            (CERTIFICATE_SINCE.to_owned(), text(now.to_string())),
            (NAMES.to_owned(), text(settings.names.join(","))),
        ]);
    } else if step == Step::ForgetOthers {
        data.insert(AUTHORITIES.to_owned(), ByteString(newest.into_bytes()));
    }
    Ok(data)
}

/// The first certificate of a PEM text.
fn first(pem: &[u8]) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(pem).ok()?;
    let end = text.find(END)? + END.len();
    Some(format!("{}\n", text[..end].trim()))
}

fn pair_of(secret: &Secret) -> Option<Pair> {
    let data = secret.data.as_ref()?;
    let of = |key: &str| data.get(key).map(|bytes| bytes.0.clone());
    Some(Pair {
        certificate: of(CERTIFICATE)?,
        key: of(KEY)?,
        authorities: of(AUTHORITIES).unwrap_or_default(),
    })
}

/// Whether one certificate names the other as its authority.
fn signed(certificate: &[u8], authority: &[u8]) -> Option<bool> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let (_, authority) = X509Certificate::from_der(authority).ok()?;
    Some(certificate.issuer() == authority.subject())
}
