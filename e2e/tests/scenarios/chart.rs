//! What the chart brings along for whoever installed it.

use aldaas_e2e::Site;

#[test]
fn helm_test_clones_the_database_that_the_values_name_and_queries_it() {
    let site = Site::get();
    let database = site.shared_database();
    let before = site.settled_census();
    let said = site.chart(&["helm-test", "aldaas", "--wait", "120"]);
    assert!(said.contains(&format!("A clone of {} answers", database.name)), "{said}");
    assert!(said.contains("100"), "and tells the rows of the dump: {said}");
    // Its pod stays to be read, without its clone.
    site.assert_nothing_left(&before);
}
