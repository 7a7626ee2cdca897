//! Killed at any step, and started again.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::json;

use crate::bed::{BAD_DUMP, Bed, DUMP, condition};

/// On the way from a dump to a ready image.
const WAY: [&str; 8] = [
    "after-begin",
    "after-watermark",
    "after-start",
    "after-restored",
    "after-seal",
    "after-evidence",
    "after-verified",
    "after-job-removal",
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_goes_on_and_nothing_is_done_twice() {
    let bed = Bed::new().await;
    bed.database("orders", &json!({ "retention": { "keep": 100 } })).await;
    for (nth, step) in WAY.into_iter().enumerate() {
        let failpoint = format!("ingest::controller-{step}");
        bed.put(&format!("orders/{nth}.sql"), DUMP);
        bed.controller_until(&failpoint).killed(&failpoint).await;
        let controller = bed.controller();
        let image = bed.ready("orders", nth + 1).await;
        assert_eq!(bed.images_of("orders").await.len(), nth + 1, "{step}: one image of each dump");
        for task in ["build", "check"] {
            assert_eq!(bed.machine.runs(&format!("{}-{task}", image.name_any())), 1, "{step}: one {task}");
        }
        bed.assert_clean().await;
        controller.stop().await;
    }

    let taken = "ingest::controller-after-take";
    bed.change("orders", &json!({ "metadata": { "annotations": { "aldaas/ingest": "now" } } })).await;
    bed.controller_until(taken).killed(taken).await;
    let controller = bed.controller();
    bed.ready("orders", WAY.len() + 1).await;
    bed.until("what was asked for is struck off", async || {
        (!bed.databases().get("orders").await.unwrap().annotations().contains_key("aldaas/ingest"))
            .then_some(())
    })
    .await;
    controller.stop().await;
    assert_eq!(bed.images_of("orders").await.len(), WAY.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_clears_away_what_failed_it_clears_away_the_rest() {
    let bed = Bed::new().await;
    bed.database("orders", &json!({ "retention": { "keep": 1 } })).await;
    let killed_at = async |step: &str| {
        let failpoint = format!("ingest::controller-{step}");
        bed.controller_until(&failpoint).killed(&failpoint).await;
        bed.controller()
    };
    for (nth, step) in ["after-fail", "after-ended"].into_iter().enumerate() {
        bed.put(&format!("orders/bad{nth}.sql"), &format!("{BAD_DUMP}-- {nth}\n"));
        let controller = killed_at(step).await;
        let image = bed.reason("orders", "Failed").await;
        assert!(condition(&image, "Ready").2.contains("custmer"), "{step}: the reason is kept");
        assert_eq!(bed.images_of("orders").await.len(), nth + 1);
        bed.assert_clean().await;
        controller.stop().await;
    }
    for (nth, step) in ["after-retry", "after-discard"].into_iter().enumerate() {
        bed.machine.trouble.lock().unwrap().push(137);
        bed.put(&format!("orders/{nth}.sql"), &format!("{DUMP}-- {nth}\n"));
        let controller = killed_at(step).await;
        let image = bed.until("it is ready at the second try", async || {
            let all = bed.images_of("orders").await;
            let wanted = format!("/{nth}.sql");
            all.into_iter()
                .find(|i| i.spec.source.location.ends_with(&wanted) && condition(i, "Ready").0 == "True")
        });
        let image = image.await;
        assert_eq!(bed.machine.runs(&format!("{}-build", image.name_any())), 2, "{step}");
        bed.assert_clean().await;
        controller.stop().await;
    }
    // The second took the first one's place, and a third does the second's.
    bed.put("orders/last.sql", DUMP);
    let controller = killed_at("after-retire").await;
    bed.until("the others are gone", async || {
        let mut states = BTreeMap::new();
        for image in bed.images_of("orders").await {
            *states.entry(condition(&image, "Ready").1).or_insert(0) += 1;
        }
        (states == [("Failed".to_owned(), 2), ("Verified".to_owned(), 1)].into()).then_some(())
    })
    .await;
    bed.assert_clean().await;
    controller.stop().await;
}
