//! The S3 gateway, through the small client `hack/s3`.

use std::collections::BTreeMap;
use std::process::Command;

use crate::{Testbed, command};

/// How to reach an S3 service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Env {
    /// `http://host:port`
    pub endpoint: String,
    /// The access key ID.
    pub access_key: String,
    /// The secret access key.
    pub secret_key: String,
    /// The region that requests are signed for.
    pub region: String,
}

impl S3Env {
    pub(crate) fn from_envs(envs: &BTreeMap<String, String>) -> Option<S3Env> {
        Some(S3Env {
            endpoint: envs.get("ALDAAS_S3_ENDPOINT")?.clone(),
            access_key: envs.get("AWS_ACCESS_KEY_ID")?.clone(),
            secret_key: envs.get("AWS_SECRET_ACCESS_KEY")?.clone(),
            region: envs.get("AWS_REGION")?.clone(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(command::hack().join("s3"));
        command
            .args(args)
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", &self.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_key)
            .env("AWS_REGION", &self.region);
        command
    }
}

impl Testbed {
    /// Makes a bucket; one that is there already is fine.
    pub fn bucket(&self, name: &str) {
        command::run(&mut self.s3().command(&["mb", name]), b"");
    }

    /// Puts an object.
    pub fn put_object(&self, bucket: &str, key: &str, bytes: &[u8]) {
        command::run(&mut self.s3().command(&["put", "-", &format!("{bucket}/{key}")]), bytes);
    }

    /// The bytes of an object.
    pub fn get_object(&self, bucket: &str, key: &str) -> Vec<u8> {
        command::run(&mut self.s3().command(&["get", &format!("{bucket}/{key}")]), b"")
    }

    /// Has the store tell `url` of every object that is made in a bucket.
    pub fn notify(&self, bucket: &str, url: &str) {
        command::run(&mut self.s3().command(&["notify", bucket, url]), b"");
    }

    /// Removes an object; one that isn't there is fine.
    pub fn delete_object(&self, bucket: &str, key: &str) {
        command::run(&mut self.s3().command(&["rm", &format!("{bucket}/{key}")]), b"");
    }
}
