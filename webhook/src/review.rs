//! `AdmissionReview` in, `AdmissionReview` out. Whatever comes in, an answer goes out, with the UID of what was asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aldaas_api::GoldenImageName;
use aldaas_api::keys::DB;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::index::Index;
use crate::metrics::Metrics;
use crate::mutate::object::Object;
use crate::mutate::workload::workload;
use crate::mutate::{Denial, Mutation, Scene, pod};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// The namespace of Kubernetes itself, where nothing is touched.
const SYSTEM: &str = "kube-system";
/// A warning is cut here: the API server shows no more of one.
const WARNING_MAX: usize = 250;
/// How long a namespace that was made a moment ago is waited for: half of the API server's patience.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Answers reviews.
pub struct Reviewer {
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    own_namespace: String,
}

/// What came in is no review at all: there is no UID to answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no AdmissionReview: {0}")]
pub struct Unreadable(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: Kind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    operation: String,
    #[serde(default)]
    object: Option<Object>,
    #[serde(default)]
    old_object: Option<Object>,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

/// The kinds that something is done about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Pod,
    Workload(&'static str),
}

impl Ours {
    fn of(group: &str, version: &str, kind: &str) -> Option<Self> {
        match (group, version, kind) {
            ("", "v1", "Pod") => Some(Self::Pod),
            ("apps", "v1", "Deployment") => Some(Self::Workload("Deployment")),
            ("apps", "v1", "StatefulSet") => Some(Self::Workload("StatefulSet")),
            ("batch", "v1", "Job") => Some(Self::Workload("Job")),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Workload(kind) => kind,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    code: u16,
    message: String,
}

impl Reviewer {
    /// Answers from what `index` knows.
    pub fn new(index: Arc<Index>, metrics: Arc<Metrics>, own_namespace: String) -> Self {
        Self { index, metrics, own_namespace }
    }

    /// Answers one review.
    ///
    /// # Errors
    /// When it is none.
    pub async fn answer(&self, body: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let started = Instant::now();
        let review: Review = match serde_json::from_slice(body) {
            Ok(review) => review,
            Err(error) => return self.answer_strange(body, &error),
        };
        if let Some(why) = other_version(&review.api_version, &review.kind) {
            self.metrics.reviewed("other", "malformed", started.elapsed());
            return Ok(denied(&review.request.uid, 400, why));
        }
        let request = &review.request;
        let ours = Ours::of(&request.kind.group, &request.kind.version, &request.kind.kind);
        let Some((ours, object, namespace)) = self.concerned(ours, request) else {
            self.metrics.reviewed(ours.map_or("other", Ours::as_str), "untouched", started.elapsed());
            return Ok(allowed(&request.uid, Mutation::default()));
        };
        if asks(object)
            && self.index.missing().is_empty()
            && self.index.catalogue().namespace(namespace).is_none()
        {
            self.index.namespace_known(namespace, PATIENCE).await;
        }
        let decided = self.decide(ours, object, namespace, request);
        let outcome = match &decided {
            Err(_) => "denied",
            Ok(mutation) if mutation.patch.is_empty() => "untouched",
            Ok(_) => "mutated",
        };
        self.metrics.reviewed(ours.as_str(), outcome, started.elapsed());
        Ok(self.tell(ours, object, namespace, &request.uid, decided))
    }

    /// Whether there is anything to decide, and about what.
    fn concerned<'a>(&self, ours: Option<Ours>, request: &'a Request) -> Option<(Ours, &'a Object, &'a str)> {
        let namespace = request.namespace.as_deref()?;
        let whole = request.sub_resource.as_deref().is_none_or(str::is_empty);
        let object = request.object.as_ref().filter(|object| object.metadata.deletion_timestamp.is_none())?;
        let away = namespace == SYSTEM || namespace == self.own_namespace;
        match whole && !away && matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
            true => Some((ours?, object, namespace)),
            false => None,
        }
    }

    fn decide(
        &self,
        ours: Ours,
        object: &Object,
        namespace: &str,
        request: &Request,
    ) -> Result<Mutation, Denial> {
        let catalogue = self.index.catalogue();
        let scene = Scene { catalogue: &catalogue, namespace, own_namespace: &self.own_namespace };
        let created = request.operation == "CREATE";
        match ours {
            Ours::Pod if created && asks(object) && !self.index.missing().is_empty() => Err(Denial::NotReady),
            Ours::Pod if created => pod(&object.metadata, &object.spec, &scene),
            // A pod that exists gets no volumes.
            Ours::Pod => Ok(Mutation::default()),
            // A Job's template never changes.
            Ours::Workload("Job") if !created => Ok(Mutation::default()),
            Ours::Workload(_) => workload(object, request.old_object.as_ref(), &scene),
        }
    }

    /// Says it: to the API server, to the log, and in numbers.
    fn tell(
        &self,
        ours: Ours,
        object: &Object,
        namespace: &str,
        uid: &str,
        decided: Result<Mutation, Denial>,
    ) -> Vec<u8> {
        let (kind, name) = (ours.as_str(), object.metadata.display_name());
        match decided {
            Ok(mutation) => {
                // The API server's audit log and the pod itself say so too; a line for each would cost a third of the work.
                if !mutation.images.is_empty() && tracing::enabled!(tracing::Level::DEBUG) {
                    let images = list(&mutation.images);
                    tracing::debug!(kind, namespace, name, review = uid, images, "admitted");
                }
                allowed(uid, mutation)
            }
            Err(denial) => {
                self.metrics.denied(denial.label());
                tracing::info!(
                    kind,
                    namespace,
                    name,
                    review = uid,
                    reason = denial.label(),
                    "denied: {denial}"
                );
                denied(uid, denial.code(), format!("aldaas: {denial}"))
            }
        }
    }

    /// A review that is not like one. If it has a UID, it gets an answer.
    fn answer_strange(&self, body: &[u8], error: &serde_json::Error) -> Result<Vec<u8>, Unreadable> {
        self.metrics.reviewed("other", "malformed", Duration::ZERO);
        let value: Value = serde_json::from_slice(body).map_err(|error| Unreadable(error.to_string()))?;
        let request = &value["request"];
        let Some(uid) = request["uid"].as_str() else {
            return Err(Unreadable("it has no request.uid".to_owned()));
        };
        let text = |key: &str| request["kind"][key].as_str().unwrap_or_default();
        let ours = Ours::of(text("group"), text("version"), text("kind"));
        // What is not ours to read may look as it likes.
        match ours.is_none() && request["kind"].is_object() && request["operation"].is_string() {
            true => Ok(allowed(uid, Mutation::default())),
            false => Ok(denied(uid, 400, format!("aldaas: this review can't be read: {error}"))),
        }
    }
}

fn other_version(api_version: &str, kind: &str) -> Option<String> {
    let shown = |text: &str| text.chars().take(80).collect::<String>();
    match api_version == API_VERSION && kind == KIND {
        true => None,
        false => Some(format!(
            "aldaas: {} {} is not known here: the webhook speaks {API_VERSION} {KIND}",
            shown(api_version),
            shown(kind)
        )),
    }
}

/// Whether a pod, or what makes pods, asks for anything.
fn asks(object: &Object) -> bool {
    let template = object.spec.template.as_ref().and_then(|template| template.metadata.as_ref());
    object.metadata.keys().get(DB).is_some() || template.is_some_and(|meta| meta.keys().get(DB).is_some())
}

fn list(images: &[GoldenImageName]) -> String {
    images.iter().map(GoldenImageName::to_string).collect::<Vec<_>>().join(",")
}

fn allowed(uid: &str, mutation: Mutation) -> Vec<u8> {
    let patch = Some(&mutation.patch).filter(|patch| !patch.is_empty());
    let patch = patch.map(|patch| STANDARD.encode(patch.json()));
    let images = Some(&mutation.images).filter(|images| !images.is_empty()).map(|images| list(images));
    let cut = |warning: String| match warning.char_indices().nth(WARNING_MAX) {
        Some((at, _)) => format!("{}…", &warning[..at]),
        None => warning,
    };
    encode(Response {
        uid,
        allowed: true,
        status: None,
        patch_type: patch.as_ref().map(|_| "JSONPatch"),
        patch,
        warnings: mutation.warnings.into_iter().map(cut).collect(),
        audit_annotations: images.into_iter().map(|images| ("golden-images", images)).collect(),
    })
}

fn denied(uid: &str, code: u16, message: String) -> Vec<u8> {
    let status = Some(Status { status: "Failure", code, message });
    let (warnings, audit_annotations) = (Vec::new(), BTreeMap::new());
    encode(Response {
        uid,
        allowed: false,
        status,
        patch_type: None,
        patch: None,
        warnings,
        audit_annotations,
    })
}

fn encode(response: Response<'_>) -> Vec<u8> {
    // Text and numbers only: there is nothing in it that could not be written.
    serde_json::to_vec(&Answer { api_version: API_VERSION, kind: KIND, response }).unwrap_or_default()
}
