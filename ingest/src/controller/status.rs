//! What the objects say: made from what was observed, compared with what they say already.

use aldaas_api::kinds::{EngineUsed, Evidence, GoldenImageStatus, READY, Step};
use aldaas_golden::State;
use aldaas_golden::record::GoldenRecord;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::model::{Image, Outcome, Task};
use super::plan::End;
use super::progress::{Said, size};

/// Everything that is known of a golden image.
pub struct Facts<'a> {
    /// What was observed.
    pub image: &'a Image,
    /// Its record in RBD.
    pub record: Option<&'a GoldenRecord>,
    /// How many clones live on it.
    pub clones: Option<usize>,
    /// Bytes that it takes in Ceph, once they were counted.
    pub used: Option<u64>,
    /// Why its pod does not run yet, if it does not.
    pub waiting: Option<&'a str>,
    /// What its Job has said.
    pub said: Option<&'a Said>,
    /// It is to be deleted and can't be, being the newest.
    pub held: bool,
    /// What was decided just now, and stands nowhere else.
    pub mark: Option<Mark>,
}

/// Something that was decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Its ingest begins.
    Begun,
    /// A Job is started for the n-th time.
    Started(Task, u32),
    /// It is tried again: n tries were made, the next is then, because of this.
    Retry(u32, Timestamp, String),
    /// It came to nothing.
    Ended(End, String),
    /// It was checked.
    Checked(Box<aldaas_api::manifest::Manifest>),
}

/// The status of a golden image.
pub fn golden_image(
    old: &GoldenImageStatus,
    generation: Option<i64>,
    facts: &Facts<'_>,
    now: Timestamp,
) -> GoldenImageStatus {
    let mut new = old.clone();
    let state = state(facts);
    record(&mut new, facts);
    let holds = |kind: &str| old.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    if state == Some(State::Sealed) && !holds("Sealed") {
        // From here on they count the checks, of which the first may have begun before.
        let begun = facts.image.check.as_ref().map(|job| i64::from(job.attempt));
        (new.attempts, new.next_try) = (begun, None);
    }
    tries(&mut new, facts);
    progress(&mut new, facts, state);
    let word = word(old, facts, state);
    let over = matches!(word.reason.as_str(), "Verified" | "Failed" | "Overtaken");
    if over && new.finished_at.is_none() {
        let ready = facts.record.and_then(|record| record.ready_at);
        new.finished_at = Some(Time(ready.unwrap_or(now)));
    } else if !over && state != Some(State::Retired) {
        new.finished_at = None;
    }
    let reached = |wanted: &[State]| state.is_some_and(|state| wanted.contains(&state));
    let restored = facts.record.is_some_and(|record| record.manifest.is_some());
    let mut set = |kind: &str, holds: bool, reason: &str, message: &str| {
        let word = Word { holds, reason: reason.to_owned(), message: message.to_owned() };
        put(&mut new.conditions, kind, &word, generation, now);
    };
    let mut step = |kind: &str, holds: bool, done: &str| match holds {
        true => set(kind, true, kind, done),
        false => set(kind, false, "NotYet", "it did not come so far"),
    };
    step("Restored", restored, "the dump was restored");
    let sealed = restored && reached(&[State::Sealed, State::Ready, State::Retired, State::Failed]);
    step("Sealed", sealed, "it is never written again");
    let verified = facts.record.is_some_and(|record| record.ready_at.is_some());
    step("Verified", verified, "the engine ran on a clone of it, and all checks held");
    set(READY, word.holds, &word.reason, &word.message);
    let retired = state == Some(State::Retired);
    match (retired, facts.held) {
        (true, _) => set("Retired", true, "Retired", &word.message),
        (false, true) => set("Retired", false, "NewestReady", HELD),
        (false, false) => new.conditions.retain(|condition| condition.type_ != "Retired"),
    }
    new
}

const HELD: &str = "it is the newest ready golden image of its database and stays until there is a newer one: \
                    then it goes as was asked for. Delete the Database first to be rid of all";

/// Its state in RBD, in the trash too.
fn state(facts: &Facts<'_>) -> Option<State> {
    facts.image.rbd.as_ref().map(|rbd| rbd.state)
}

/// What the record in RBD says.
fn record(new: &mut GoldenImageStatus, facts: &Facts<'_>) {
    new.clones =
        facts.clones.and_then(|clones| i64::try_from(clones).ok()).filter(|_| facts.record.is_some());
    let Some(record) = facts.record else { return };
    new.provisioned_bytes = i64::try_from(record.size).ok();
    // Never written again, they never change: what was counted once stays.
    new.used_bytes = facts.used.and_then(|used| i64::try_from(used).ok()).or(new.used_bytes);
    new.started_at.get_or_insert(Time(record.created_at));
    let Some(manifest) = &record.manifest else { return };
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    new.size = Some(size(manifest.contents.bytes));
    let (name, version) = (manifest.engine.name.clone(), manifest.engine.version.clone());
    let image_digest = manifest.engine.image_digest.clone();
    new.engine = Some(EngineUsed { name, version, image_digest });
    new.evidence = Some(Evidence {
        sha256: manifest.source.sha256.clone(),
        size: number(manifest.source.size),
        format: manifest.source.format.clone(),
        tables: number(manifest.contents.tables),
        rows: number(manifest.contents.rows),
        bytes: number(manifest.contents.bytes),
    });
    for (step, milliseconds) in &manifest.steps {
        new.steps.insert(step.to_string(), Step { milliseconds: number(*milliseconds) });
    }
}

fn tries(new: &mut GoldenImageStatus, facts: &Facts<'_>) {
    match &facts.mark {
        Some(Mark::Begun) => *new = GoldenImageStatus::default(),
        Some(Mark::Started(_, attempt)) => {
            new.attempts = Some(i64::from(*attempt));
            new.next_try = None;
        }
        Some(Mark::Retry(attempt, at, _)) => {
            new.attempts = Some(i64::from(*attempt));
            new.next_try = Some(Time(*at));
        }
        Some(Mark::Ended(..)) => new.next_try = None,
        Some(Mark::Checked(manifest)) => {
            for (step, milliseconds) in &manifest.steps {
                let milliseconds = i64::try_from(*milliseconds).unwrap_or(i64::MAX);
                new.steps.insert(format!("verify-{step}"), Step { milliseconds });
            }
        }
        None => {}
    }
    let state = state(facts);
    if matches!(state, Some(State::Ready | State::Failed | State::Retired)) {
        new.next_try = None;
    }
}

fn progress(new: &mut GoldenImageStatus, facts: &Facts<'_>, state: Option<State>) {
    (new.progress, new.step) = (None, None);
    (new.bytes_read, new.bytes_total, new.bytes_per_second) = (None, None, None);
    let works =
        |task| matches!(facts.image.job(task), Some(job) if matches!(job.outcome, Outcome::Running(_)));
    let number = |value: u64| i64::try_from(value).ok();
    let Some(said) = facts.said else { return };
    if state == Some(State::Sealed) && works(Task::Check) {
        new.progress = said.step.map(|step| format!("verify: {step}"));
        new.step = said.step.map(|step| step.to_string());
    } else if matches!(state, None | Some(State::Candidate)) && works(Task::Build) {
        new.progress = said.for_people();
        new.step = said.step.map(|step| step.to_string());
        new.bytes_read = number(said.bytes);
        new.bytes_total = said.total.and_then(number);
        new.bytes_per_second = said.rate.and_then(number);
    }
}

/// A condition's content.
struct Word {
    holds: bool,
    reason: String,
    message: String,
}

/// Where it stands, as `Ready` says it.
fn word(old: &GoldenImageStatus, facts: &Facts<'_>, state: Option<State>) -> Word {
    let word = |reason: &str, message: String| Word {
        holds: reason == "Verified",
        reason: reason.to_owned(),
        message,
    };
    let before = old.conditions.iter().find(|condition| condition.type_ == READY);
    let still = |reason: &str| before.filter(|c| c.reason == reason).map(|c| c.message.clone());
    match (state, &facts.mark) {
        (Some(State::Ready), _) => word("Verified", "it can be cloned".to_owned()),
        (Some(State::Retired), _) => word(
            "Retired",
            match facts.clones {
                Some(0) | None => "it is on its way out".to_owned(),
                Some(1) => "it takes no new clones, and goes with the one that lives on it".to_owned(),
                Some(n) => {
                    format!("it takes no new clones, and goes with the last of the {n} that live on it")
                }
            },
        ),
        (Some(State::Failed), _) => {
            let reason = facts.record.and_then(|record| record.reason.clone());
            word("Failed", shorten(&reason.unwrap_or_else(|| "no reason was kept".to_owned())))
        }
        (_, Some(Mark::Ended(end, why))) => word(end.as_str(), shorten(why)),
        (_, Some(Mark::Retry(attempt, _, why))) => {
            word("Waiting", shorten(&format!("try {attempt} failed and is repeated: {why}")))
        }
        _ if facts.image.object.as_ref().is_some_and(|object| object.ended.is_some()) => {
            let (reason, message) = ["Failed", "Overtaken"]
                .iter()
                .find_map(|reason| Some((*reason, still(reason)?)))
                .unwrap_or(("Failed", String::new()));
            word(reason, message)
        }
        (state, _) => going_on(facts, state, still("Waiting")),
    }
}

fn going_on(facts: &Facts<'_>, state: Option<State>, last_failure: Option<String>) -> Word {
    let word =
        |reason: &str, message: &str| Word { holds: false, reason: reason.into(), message: message.into() };
    let task = if state == Some(State::Sealed) { Task::Check } else { Task::Build };
    if facts.image.rbd.as_ref().is_some_and(|rbd| rbd.builder.is_none()) {
        return word("BuiltElsewhere", "it is built by `aldaas ingest` on some machine");
    }
    if facts.image.is_lost() {
        return word("Lost", "its image is not in Ceph any more");
    }
    if task == Task::Build && facts.image.is_restored() {
        return word("Sealing", "it is sealed as soon as the node lets go of it");
    }
    let Some(job) = facts.image.job(task).filter(|job| !job.deleting) else {
        let ours = facts.image.object.as_ref().is_none_or(|object| object.ours);
        return match last_failure {
            Some(message) => word("Waiting", &message),
            None if ours => word("Pending", "its Job is about to begin"),
            None => word(
                "NoImage",
                "there is no such image in Ceph, and nothing makes one: to start an ingest, \
                 `kubectl annotate database NAME aldaas/ingest=now`",
            ),
        };
    };
    match (&job.outcome, task) {
        (Outcome::Running(_), _) if facts.waiting.is_some() => {
            word("Pending", &shorten(facts.waiting.unwrap_or_default()))
        }
        (Outcome::Running(_), Task::Build) => word("Restoring", "the dump is restored into it"),
        (Outcome::Running(_), Task::Check) => word("Verifying", "it is looked at on a clone"),
        (Outcome::Done { .. }, Task::Build) => {
            word("Sealing", "it is sealed as soon as the node lets go of it")
        }
        (Outcome::Done { .. }, Task::Check) => word("Verifying", "it was looked at on a clone"),
        // What becomes of it is said in the next moment.
        (Outcome::MayPass(why) | Outcome::Final(why), Task::Build) => word("Restoring", &shorten(why)),
        (Outcome::MayPass(why) | Outcome::Final(why), Task::Check) => word("Verifying", &shorten(why)),
    }
}

/// Conditions end at 32 KiB, and people's patience before that.
fn shorten(text: &str) -> String {
    const MAX: usize = 2000;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text.to_owned(),
    }
}

/// Sets a condition; its time changes with its status only.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: &str,
    (reason, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) {
    let before = conditions.iter().position(|condition| condition.type_ == kind);
    let since = before.map(|at| &conditions[at]).filter(|c| c.status == status);
    let new = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        // An empty one would be left out, and the API server wants one.
        message: shorten(if message.is_empty() { reason } else { message }),
        observed_generation: generation,
        last_transition_time: since.map_or(Time(whole_seconds(now)), |c| c.last_transition_time.clone()),
    };
    match before {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

fn put(conditions: &mut Vec<Condition>, kind: &str, word: &Word, generation: Option<i64>, now: Timestamp) {
    let status = if word.holds { "True" } else { "False" };
    set(conditions, kind, status, (&word.reason, &word.message), generation, now);
}

/// As the API server keeps times: what is read back is then the same.
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
