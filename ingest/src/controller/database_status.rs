//! What a `Database` says of itself.

use aldaas_api::GoldenImageName;
use aldaas_api::kinds::{DatabaseStatus, READY, SourceObject};
use aldaas_golden::record::GoldenRecord;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::model::{Image, Request, View};
use super::progress::size;
use super::status::{set, whole_seconds};

/// What the bucket is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It was not looked at yet.
    #[default]
    Unknown,
    /// It can be read: so many dumps match.
    Yes(u64),
    /// It can't, in a word and in a sentence.
    No(String, String),
}

/// All that its status is made from.
pub struct Facts<'a> {
    /// What was observed.
    pub view: &'a View,
    /// The generation of its spec that this is about.
    pub generation: Option<i64>,
    /// The newest ready image and its record.
    pub latest: Option<(&'a GoldenImageName, &'a GoldenRecord)>,
    /// The bucket.
    pub reach: &'a Reach,
    /// What the ingest under way says of itself: its image, reason and message or progress.
    pub going_on: Option<(GoldenImageName, String, String)>,
    /// Why nothing can be done at the moment.
    pub away: Option<&'a str>,
}

/// The status of a database.
pub fn database(old: &DatabaseStatus, facts: &Facts<'_>, now: Timestamp) -> DatabaseStatus {
    let mut new = old.clone();
    new.observed_generation = facts.generation;
    // With Ceph away nobody knows what is latest: what was known stays.
    if facts.away.is_none() {
        latest(&mut new, facts, now);
    }
    let reachable = match facts.reach {
        Reach::Unknown => ("Unknown", "NotYet", "the bucket was not looked at yet".to_owned()),
        Reach::Yes(0) => ("True", "Empty", "the bucket can be read; no dump in it matches yet".to_owned()),
        Reach::Yes(1) => ("True", "Listed", "1 dump matches".to_owned()),
        Reach::Yes(many) => ("True", "Listed", format!("{many} dumps match")),
        Reach::No(reason, message) => ("False", reason.as_str(), message.clone()),
    };
    // What another replica found out about this very spec holds until we have looked ourselves.
    let told =
        new.conditions.iter().any(|c| c.type_ == "Reachable" && c.observed_generation == facts.generation);
    if !(told && *facts.reach == Reach::Unknown) {
        let said = (reachable.1, reachable.2.as_str());
        set(&mut new.conditions, "Reachable", reachable.0, said, facts.generation, now);
    }
    let (status, reason, message) = progressing(facts);
    set(&mut new.conditions, "Progressing", status, (&reason, &message), facts.generation, now);
    new
}

fn latest(new: &mut DatabaseStatus, facts: &Facts<'_>, now: Timestamp) {
    new.latest = facts.latest.map(|(name, _)| name.to_string());
    new.latest_since =
        facts.latest.map(|(_, record)| Time(whole_seconds(record.ready_at.unwrap_or(record.created_at))));
    let bytes =
        |record: &GoldenRecord| record.manifest.as_ref().map(|manifest| size(manifest.contents.bytes));
    new.latest_size = facts.latest.and_then(|(_, record)| bytes(record));
    let (status, reason, message) = match facts.latest {
        Some((name, _)) => ("True", "Available", format!("{name} can be cloned")),
        None => ("False", "NoGoldenImage", "there is no golden image yet".to_owned()),
    };
    set(&mut new.conditions, READY, status, (reason, &message), facts.generation, now);
}

fn progressing(facts: &Facts<'_>) -> (&'static str, String, String) {
    let idle = |reason: &str, message: &str| ("False", reason.to_owned(), message.to_owned());
    let Some(spec) = &facts.view.database else { return idle("Idle", "") };
    if let Some(away) = facts.away {
        return idle("CephAway", away);
    }
    if let Some((image, reason, message)) = &facts.going_on {
        return ("True", reason.clone(), format!("{image}: {message}"));
    }
    if let Some(problem) = &spec.problem {
        return idle("Invalid", problem);
    }
    match &spec.request {
        Some(Request::Asked(_) | Request::Taken(..)) => {
            idle("Asked", "what was asked for by hand begins now")
        }
        None if spec.suspend => idle("Suspended", "spec.suspend is set: no new dump is taken"),
        None => idle("Idle", "the next dump is waited for"),
    }
}

/// The ingest under way.
pub fn in_progress(view: &View) -> Option<(&GoldenImageName, &Image)> {
    view.images.iter().rev().find(|(_, image)| image.is_in_progress())
}

/// A dump as the objects write it.
pub fn source_object(dump: &super::model::Dump) -> SourceObject {
    SourceObject {
        location: dump.source.location.clone(),
        etag: dump.source.etag.clone(),
        size: dump.size.and_then(|size| i64::try_from(size).ok()),
        last_modified: Some(dump.modified.to_string()),
    }
}
