//! Ceph goes away, and comes back.

use aldaas_testbed::{Daemon, Testbed};
use kube::ResourceExt as _;
use serde_json::json;

use crate::bed::{Bed, DUMP, condition};

#[tokio::test(flavor = "multi_thread")]
async fn with_ceph_away_nothing_is_done_or_removed_and_it_says_so() {
    let own = Testbed::own_cluster_without_s3();
    let bed = Bed::on(&own).await;
    let controller = bed.controller();
    bed.database("orders", &json!({})).await;
    bed.put("orders/1.sql", DUMP);
    let first = bed.ready("orders", 1).await;
    bed.assert_clean().await;
    own.stop(Daemon::Osd);
    bed.until("it says so", async || (bed.says("orders", "Progressing").await.1 == "CephAway").then_some(()))
        .await;
    let (code, page) = bed.page("/readyz").await.unwrap();
    assert!(code == 503 && page.contains("Ceph does not answer"), "{page}");
    bed.put("orders/2.sql", &format!("{DUMP}-- 2\n"));
    bed.notify("orders/2.sql").await;
    bed.until("the new dump is seen", async || {
        bed.says("orders", "Reachable").await.2.starts_with('2').then_some(())
    })
    .await;
    let images = bed.images_of("orders").await;
    assert_eq!(images.len(), 1);
    assert_eq!(
        (images[0].name_any(), condition(&images[0], "Ready").0),
        (first.name_any(), "True".to_owned())
    );
    let latest = bed.databases().get("orders").await.unwrap().status.unwrap().latest;
    assert_eq!(latest, Some(first.name_any()), "what was known stays");

    own.start_again(Daemon::Osd);
    bed.ready("orders", 2).await;
    bed.assert_clean().await;
    controller.stop().await;
}
