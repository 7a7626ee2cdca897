//! Dumps that come later, and bad ones.

use std::time::{Duration, Instant};

use aldaas_e2e::{Site, dump, name_of, path, until};
use serde_json::{Value, json};

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    all.and_then(|all| all.iter().find(|condition| condition["type"] == kind)).unwrap_or(&Value::Null)
}

#[test]
fn new_pods_get_the_second_dump_old_ones_keep_the_first_and_it_goes_with_the_last_of_them() {
    let site = Site::get();
    let database = site.database("twice");
    let room = site.room("twice");
    let first = database.ingest("1.sql", &dump(10, "first"));
    let latest = json!({"aldaas/db": format!("{}:latest", database.name)});
    site.kube.apply(&room.pod("old", latest.clone()));
    room.until_ready("old", 1);

    let second = database.ingest("2.sql", &dump(20, "second"));
    site.kube.apply(&room.pod("new", latest));
    room.until_ready("new", 1);
    let note = |pod: &str| room.sql(pod, &database.name, "SELECT min(note) FROM orders");
    assert_eq!((note("old").as_str(), note("new").as_str()), ("first", "second"));

    // One is kept, and the first one has a clone.
    let image = |name: &str| format!("image golden/{name}@sealed");
    assert!(site.census().has(&image(&second)));
    room.remove("pods", "old");
    until("the first golden image is retired", || {
        let now = site.census();
        (!now.has(&image(&first)) && !now.has_word(&first)).then_some(())
    });
    assert_eq!(note("new"), "second");
    assert_eq!(database.latest(), Some(second));
}

/// The bucket is listed once in an hour: what comes sooner comes because radosgw has told of it.
#[test]
fn a_dump_that_the_store_tells_of_begins_within_seconds() {
    let site = Site::get();
    let mut database = site.database("told");
    database.be_told();
    assert!(database.golden_images().is_empty());
    database.upload("1.sql", &dump(10, "told"));
    let told = Instant::now();
    let image = until("its golden image has begun", || database.golden_images().pop());
    assert!(told.elapsed() < Duration::from_secs(10), "begun after {:?}", told.elapsed());
    assert_eq!(image["spec"]["source"]["location"], database.location("1.sql"));
    let latest = database.until_latest_other_than(None);
    assert_eq!(latest, name_of(&image));
    let image = site.kube.get(&path("goldenimages", "", &latest)).unwrap();
    let digest = image["status"]["engine"]["imageDigest"].as_str().unwrap_or_default();
    assert!(digest.starts_with("sha256:"), "{image}");
    // It is counted when nobody waits for it.
    until("how much it takes in Ceph is known", || {
        let image = site.kube.get(&path("goldenimages", "", &latest))?;
        image["status"]["usedBytes"].as_i64().filter(|bytes| *bytes > 1 << 20)
    });
}

#[test]
fn a_bad_dump_leaves_the_previous_one_latest_and_says_why() {
    let site = Site::get();
    let database = site.database("bad");
    let good = database.ingest("1.sql", &dump(10, "good"));
    let mut bad = dump(10, "bad");
    let end = bad.len() - 80;
    bad.splice(end..end, *b"\nSELECT * FROM no_such_table;\n");
    database.upload("2.sql", &bad);
    let failed = until("the bad dump has failed", || {
        database
            .golden_images()
            .into_iter()
            .find(|image| name_of(image) != good && condition(image, "Ready")["reason"] == "Failed")
    });
    let why = condition(&failed, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("no_such_table"), "the reason in plain words: {why:?}");
    assert_eq!(database.latest(), Some(good));
    let rows = site.kube.kubectl(&["get", "goldenimages"]).unwrap();
    assert!(rows.contains(name_of(&failed)), "{rows}");
}
