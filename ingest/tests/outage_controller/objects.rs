//! What people do with the objects: ask, delete, lose.

use aldaas_golden::{CloneRequest, Purpose};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::bed::{Bed, DUMP, condition};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_by_hand_is_done_and_a_newer_dump_overtakes_what_waits() {
    let bed = Bed::new().await;
    let controller = bed.controller();
    bed.put("orders/1.sql", DUMP);
    let other = json!({ "suspend": true, "source": { "s3": { "credentials": { "secret": "other" } } } });
    bed.database("orders", &other).await;
    bed.until("its Secret is missed", async || {
        (bed.says("orders", "Reachable").await.1 == "NoSecret").then_some(())
    })
    .await;
    bed.change("orders", &json!({ "spec": { "source": { "s3": { "credentials": { "secret": "s3" } } } } }))
        .await;
    bed.until("it is suspended", async || {
        (bed.says("orders", "Progressing").await.1 == "Suspended").then_some(())
    })
    .await;
    bed.until("the dump is seen", async || {
        (bed.says("orders", "Reachable").await.1 == "Listed").then_some(())
    })
    .await;

    let ask = async |what: &str| {
        bed.change("orders", &json!({ "metadata": { "annotations": { "aldaas/ingest": what } } })).await;
    };
    ask("now").await;
    bed.ready("orders", 1).await;
    ask("orders/1.sql").await;
    bed.ready("orders", 2).await;
    ask("orders/none.sql").await;
    bed.until("it is refused", async || {
        bed.events_about("orders").await.contains(&"IngestRefused".to_owned()).then_some(())
    })
    .await;

    // The first try is killed; before the second there is a newer dump.
    bed.machine.trouble.lock().unwrap().push(137);
    bed.put("orders/2.sql", &format!("{DUMP}-- 2\n"));
    bed.change("orders", &json!({ "spec": { "suspend": false } })).await;
    let waits = bed.reason("orders", "Waiting").await;
    let status = waits.status.clone().unwrap();
    assert!(status.next_try.is_some() && status.attempts == Some(1), "{status:?}");
    bed.put("orders/3.sql", &format!("{DUMP}-- 3\n"));
    bed.notify("orders/3.sql").await;
    let newest = bed.ready("orders", 3).await;
    assert!(newest.spec.source.location.ends_with("3.sql"));
    let overtaken = bed.images().get(&waits.name_any()).await.unwrap();
    assert_eq!(condition(&overtaken, "Ready").1, "Overtaken");
    bed.assert_clean().await;

    let (code, page) = bed.page("/metrics").await.unwrap();
    assert_eq!(code, 200);
    for line in [
        r#"aldaas_ingests_total{database="orders",outcome="ready"} 3"#,
        r#"aldaas_ingests_total{database="orders",outcome="overtaken"} 1"#,
        r#"aldaas_ingest_retries_total{database="orders"} 1"#,
        "aldaas_controller_ceph_up 1",
    ] {
        assert!(page.contains(line), "{line} is missing in {page}");
    }
    assert_eq!(bed.page("/readyz").await.unwrap().0, 200);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_retired_without_breaking_clones_and_objects_that_were_lost_come_back() {
    let bed = Bed::new().await;
    let controller = bed.controller();
    bed.database("orders", &json!({ "retention": { "keep": 1 } })).await;
    bed.put("orders/1.sql", DUMP);
    let first = bed.ready("orders", 1).await;
    let image = bed.store.latest(&"orders".parse().unwrap()).unwrap();
    let clone = CloneRequest {
        name: "keeps-it".parse().unwrap(),
        purpose: Purpose::Named,
        holder: None,
        object_size: None,
        pod: None,
        unverified: false,
    };
    bed.store.ensure_clone(&image, &clone).unwrap();
    bed.put("orders/2.sql", &format!("{DUMP}-- 2\n"));
    bed.notify("orders/2.sql").await;
    let retired = bed
        .until("the first is retired", async || {
            let image = bed.images().get(&first.name_any()).await.unwrap();
            (condition(&image, "Retired").0 == "True" && image.status.as_ref()?.clones == Some(1))
                .then_some(image)
        })
        .await;
    assert!(condition(&retired, "Ready").2.contains("goes with the one that lives on it"), "{retired:?}");
    let second = bed.ready("orders", 1).await;
    bed.store.remove_clone(&clone.name).unwrap();
    let of_orders =
        async || bed.images_of("orders").await.iter().map(|image| image.name_any()).collect::<Vec<_>>();
    let only_second = async || (of_orders().await == [second.name_any()]).then_some(());
    bed.until("the first is gone with its clone", only_second).await;

    // Somebody deletes the newest, and then even its finalizer.
    bed.delete(bed.images(), &second.name_any()).await;
    let image = bed
        .until("it is kept", async || {
            let image = bed.images().get(&second.name_any()).await.unwrap();
            (condition(&image, "Retired").1 == "NewestReady").then_some(image)
        })
        .await;
    assert_eq!(condition(&image, "Ready").0, "True");
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    bed.images().patch(&second.name_any(), &PatchParams::default(), &none).await.unwrap();
    let again = bed.until("it comes back", async || {
        let image = bed.images().get_opt(&second.name_any()).await.unwrap()?;
        (image.uid() != second.uid() && condition(&image, "Ready").0 == "True").then_some(image)
    });
    let again = again.await;
    assert_eq!(again.spec.source.location, second.spec.source.location);
    assert_eq!(again.status.unwrap().evidence, second.status.clone().unwrap().evidence);

    // An ingest ends with its Database, and what is ready stays.
    bed.machine.hold.store(true, std::sync::atomic::Ordering::Release);
    bed.put("orders/3.sql", &format!("{DUMP}-- 3\n"));
    bed.notify("orders/3.sql").await;
    bed.reason("orders", "Restoring").await;
    bed.delete(bed.databases(), "orders").await;
    bed.until("only the ready one is left", only_second).await;
    bed.assert_clean().await;
    assert_eq!(bed.store.golden_images().unwrap().len(), 1);
    // Without a Database nothing keeps the newest from being deleted.
    bed.delete(bed.images(), &second.name_any()).await;
    bed.until("it is gone", async || of_orders().await.is_empty().then_some(())).await;
    assert!(bed.store.golden_images().unwrap().is_empty());
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_acts_and_the_other_goes_on_where_it_stopped() {
    let bed = Bed::new().await;
    let one = bed.controller();
    bed.database("orders", &json!({})).await;
    bed.machine.hold.store(true, std::sync::atomic::Ordering::Release);
    bed.put("orders/1.sql", DUMP);
    let begun = bed.reason("orders", "Restoring").await;
    let two = bed.second();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    one.stop().await;
    bed.machine.hold.store(false, std::sync::atomic::Ordering::Release);
    let ready = bed.ready("orders", 1).await;
    assert_eq!(ready.uid(), begun.uid(), "the same ingest");
    assert_eq!(bed.machine.runs(&format!("{}-build", ready.name_any())), 1);
    bed.assert_clean().await;
    two.stop().await;
}

/// The schema lets it pass, and yet it means nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_means_nothing_says_so_and_harms_no_other() {
    let bed = Bed::new().await;
    let controller = bed.controller();
    bed.database("orders", &json!({})).await;
    bed.database("users", &json!({})).await;
    let bad = json!({ "spec": { "clone": { "ttl": "999d" } } });
    let databases: kube::Api<kube::core::DynamicObject> = kube::Api::all_with(
        bed.client.clone(),
        &kube::core::ApiResource::erase::<aldaas_api::kinds::Database>(&()),
    );
    databases.patch("users", &PatchParams::default(), &Patch::Merge(bad)).await.unwrap();
    let why = bed
        .until("it says so", async || {
            let object = databases.get_status("users").await.unwrap();
            let conditions = object.data["status"]["conditions"].as_array()?.clone();
            let found = conditions.into_iter().find(|condition| condition["type"] == "Progressing")?;
            (found["reason"] == "Invalid").then(|| found["message"].as_str().unwrap().to_owned())
        })
        .await;
    assert!(why.contains("999d"), "{why}");
    bed.put("orders/1.sql", DUMP);
    bed.ready("orders", 1).await;
    controller.stop().await;
}
