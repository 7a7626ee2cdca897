//! Events: what `kubectl describe` shows.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

/// Bytes that an Event's text may have.
const NOTE: usize = 1000;
/// Where Events about objects are that are in no namespace. Every version of Kubernetes takes those of the first kind (core/v1)
/// there; those of `events.k8s.io` it wanted elsewhere once.
const NAMESPACE: &str = "default";
/// Who says it.
const CONTROLLER: &str = "aldaas-ingest";

/// Writes Events. One that can't be written is missed by people, and by nothing else.
pub struct Tell {
    events: Api<Event>,
    identity: String,
}

impl Tell {
    /// In the name of this replica.
    pub fn new(client: Client, identity: &str) -> Self {
        Self { events: Api::namespaced(client, NAMESPACE), identity: identity.to_owned() }
    }

    /// As it should be.
    pub fn normal(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish("Normal", about, reason, note);
    }

    /// Somebody may want to look.
    pub fn warning(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish("Warning", about, reason, note);
    }

    /// Nobody waits for it.
    fn publish(&self, kind: &str, about: &ObjectReference, reason: &str, note: &str) {
        let now = Some(Time(Timestamp::now()));
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", about.name.as_deref().unwrap_or("aldaas"))),
                ..ObjectMeta::default()
            },
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(note[..note.floor_char_boundary(NOTE)].to_owned()),
            involved_object: about.clone(),
            source: Some(EventSource {
                component: Some(CONTROLLER.to_owned()),
                host: Some(self.identity.clone()),
            }),
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Event::default()
        };
        let (events, reason) = (self.events.clone(), reason.to_owned());
        tokio::spawn(async move {
            if let Err(error) = events.create(&PostParams::default(), &event).await {
                let error = aldaas_daemon::kubernetes::say(&error);
                tracing::debug!(error, reason, "an Event was not written");
            }
        });
    }
}
