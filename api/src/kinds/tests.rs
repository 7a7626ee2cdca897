use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{DatabaseName, GoldenImageName, Ttl};

fn schema(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(&definition.spec.versions[0].schema).unwrap()["openAPIV3Schema"].clone()
}

#[test]
fn the_smallest_database_has_what_most_people_want() {
    let database: Database = serde_json::from_value(json!({
        "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": { "name": "orders" },
        "spec": {
            "engine": { "image": "postgres:15.8" },
            "source": { "s3": { "bucket": "backup" } },
            "storage": { "size": "100Gi" },
        },
    }))
    .unwrap();
    let spec = &database.spec;
    assert_eq!((spec.engine.port(), spec.engine.owner()), (5432, (999, 999)));
    assert_eq!(spec.engine.mount(), "/var/lib/postgresql/data");
    assert_eq!(spec.storage.size.bytes(), 100 << 30);
    assert_eq!((spec.retention.keep, spec.version_mismatch), (3, VersionMismatch::Deny));
    assert_eq!(spec.access.namespace_selector, None, "nobody but aldaas itself");
}

#[test]
fn everything_that_people_write_has_a_description() {
    fn look(path: &str, schema: &Value, without: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            // `metadata` has Kubernetes' own.
            if property["description"].as_str().is_none_or(str::is_empty) && !path.contains(".metadata") {
                without.push(path.clone());
            }
            look(&path, property, without);
            look(&path, &property["items"], without);
        }
    }
    let mut without = Vec::new();
    for definition in definitions().unwrap() {
        look(&definition.spec.names.kind, &schema(&definition), &mut without);
    }
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn the_api_server_knows_every_format_in_the_schemas() {
    let text = serde_json::to_string(&definitions().unwrap()).unwrap();
    assert!(!text.contains("\"format\":\"uint"), "Kubernetes has no unsigned formats");
}

#[test]
fn sizes_are_read_as_kubernetes_writes_them() {
    let size = |text: &str| Size::try_from(text.to_owned()).map(|size| size.bytes());
    assert_eq!(size("50Gi"), Ok(50 << 30));
    assert_eq!(size("2T"), Ok(2_000_000_000_000));
    assert_eq!(size("9999999Ti"), Ok(9_999_999 << 40));
    for bad in ["", "Gi", "50", "0Gi", "007Gi", "50gb", "1.5Gi", "-1Gi", "10000000Ti", "5 Gi", "５Gi"] {
        assert!(size(bad).is_err(), "{bad:?}");
    }
    let object = |text: &str| ObjectSize::try_from(text.to_owned()).map(|size| size.bytes());
    assert_eq!(object("64Ki"), Ok(64 << 10));
    assert_eq!(object("32Mi"), Ok(32 << 20));
    for bad in ["48Ki", "2Ki", "64Mi", "1Gi"] {
        assert!(object(bad).unwrap_err().to_string().contains("e.g. 64Ki"), "{bad}");
    }
}

#[test]
fn the_schema_and_the_types_agree_on_names() {
    let names = ["orders", "a", "or-ders", "Orders", "1a", "a-", "", "a_b", "latest", "a--b"];
    let matches = |pattern: &str, text: &str| regex::Regex::new(pattern).unwrap().is_match(text);
    for name in names {
        let allowed = matches(DATABASE_PATTERN, name) && name != "latest";
        assert_eq!(allowed, name.parse::<DatabaseName>().is_ok(), "{name}");
    }
    for name in ["orders-20261123t033000z", "orders", "orders-20261123", "-20261123t033000z"] {
        assert_eq!(matches(IMAGE_PATTERN, name), name.parse::<GoldenImageName>().is_ok(), "{name}");
    }
}

fn pattern_of<T: schemars::JsonSchema>() -> regex::Regex {
    let schema = schemars::SchemaGenerator::default().into_root_schema_for::<T>();
    regex::Regex::new(schema.get("pattern").and_then(Value::as_str).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn what_the_schema_lets_pass_can_be_read(
        size in "[1-9][0-9]{0,6}(Ki|Mi|Gi|Ti|M|G|T)",
        object in "((4|8|16|32|64|128|256|512)Ki|(1|2|4|8|16|32)Mi)",
        text in "[0-9]{0,4}[A-Za-z]{0,3}",
        seconds in 1..=365 * 24 * 3600_u32,
    ) {
        prop_assert!(Size::try_from(size).is_ok());
        prop_assert!(ObjectSize::try_from(object).is_ok());
        prop_assert_eq!(pattern_of::<Size>().is_match(&text), Size::try_from(text.clone()).is_ok());
        prop_assert_eq!(pattern_of::<ObjectSize>().is_match(&text), ObjectSize::try_from(text.clone()).is_ok());
        let ttl = format!("{seconds}s").parse::<Ttl>().unwrap().to_string();
        prop_assert!(pattern_of::<Ttl>().is_match(&ttl), "{}", ttl);
    }
}
