//! What stores send when an object was written: AWS, MinIO and radosgw alike, and wrapped by SNS or EventBridge.
//!
//! Nothing of it is believed: it only says where to look.

use serde_json::Value;

/// Where something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: String,
    /// The key, as it is written in the bucket.
    pub key: String,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Objects were written.
    Objects(Vec<Place>),
    /// SNS wants somebody to confirm that it may send here, by opening this address.
    Confirm(String),
    /// The store tries whether somebody is here.
    Test,
}

/// How often one message may be wrapped in another.
const WRAPPINGS: u32 = 3;

/// Reads one; none if it is nothing that we know.
pub fn read(body: &[u8]) -> Option<Notification> {
    unwrap(&serde_json::from_slice(body).ok()?, WRAPPINGS)
}

fn unwrap(message: &Value, wrappings: u32) -> Option<Notification> {
    let text = |key: &str| message.get(key).and_then(Value::as_str);
    match text("Type") {
        Some("Notification") if wrappings > 0 => {
            return unwrap(&serde_json::from_str(text("Message")?).ok()?, wrappings - 1);
        }
        Some("SubscriptionConfirmation") => {
            return Some(Notification::Confirm(text("SubscribeURL")?.to_owned()));
        }
        Some("UnsubscribeConfirmation") => return Some(Notification::Test),
        _ => {}
    }
    if text("Event") == Some("s3:TestEvent") {
        return Some(Notification::Test);
    }
    if let Some(records) = message.get("Records").and_then(Value::as_array) {
        return Some(Notification::Objects(records.iter().filter_map(record).collect()));
    }
    // EventBridge writes keys as they are.
    let detail = message.get("detail")?;
    let bucket = detail.pointer("/bucket/name")?.as_str()?.to_owned();
    let key = detail.pointer("/object/key")?.as_str()?.to_owned();
    Some(Notification::Objects(vec![Place { bucket, key }]))
}

fn record(record: &Value) -> Option<Place> {
    let bucket = record.pointer("/s3/bucket/name")?.as_str()?.to_owned();
    let key = decode(record.pointer("/s3/object/key")?.as_str()?);
    Some(Place { bucket, key })
}

/// Keys in records are encoded as in a form: `+` is a space.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, behind) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, behind @ ..]) => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => {
                        bytes.push(high << 4 | low);
                        rest = behind;
                    }
                    _ => bytes.push(byte),
                }
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(value: &Value) -> Option<Notification> {
        read(value.to_string().as_bytes())
    }

    fn written(key: &str) -> Option<Notification> {
        Some(Notification::Objects(vec![Place { bucket: "backup".into(), key: key.into() }]))
    }

    fn records() -> Value {
        let s3 =
            json!({ "bucket": { "name": "backup" }, "object": { "key": "orders/dump+1%20a%2Bb.sql.gz" } });
        json!({ "Records": [{ "eventVersion": "2.1", "eventName": "ObjectCreated:Put", "s3": s3 }] })
    }

    #[test]
    fn every_stores_way_of_saying_it_is_understood() {
        assert_eq!(of(&records()), written("orders/dump 1 a+b.sql.gz"));
        let mut minio = records();
        minio["EventName"] = json!("s3:ObjectCreated:Put");
        minio["Key"] = json!("backup/orders/x");
        assert_eq!(of(&minio), written("orders/dump 1 a+b.sql.gz"));
        let sns = json!({ "Type": "Notification", "Message": records().to_string() });
        assert_eq!(of(&sns), written("orders/dump 1 a+b.sql.gz"));
        let detail = json!({ "bucket": { "name": "backup" }, "object": { "key": "orders/a+b%20.sql" } });
        assert_eq!(
            of(&json!({ "detail-type": "Object Created", "detail": detail })),
            written("orders/a+b%20.sql")
        );
        assert_eq!(of(&json!({ "Service": "Amazon S3", "Event": "s3:TestEvent" })), Some(Notification::Test));
        let confirm = json!({ "Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns/x" });
        assert_eq!(of(&confirm), Some(Notification::Confirm("https://sns/x".into())));
    }

    #[test]
    fn a_message_that_is_wrapped_for_ever_is_nothing() {
        let mut message = records();
        for _ in 0..9 {
            message = json!({ "Type": "Notification", "Message": message.to_string() });
        }
        assert_eq!(of(&message), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), key in ".{0,40}") {
            let _ = read(&body);
            let _ = read(json!({ "Records": [{ "s3": { "bucket": { "name": key }, "object": { "key": key } } }] }).to_string().as_bytes());
            prop_assert!(decode(&key).len() <= key.len() * 3);
        }
    }
}
