//! A bucket of its own for each test, filled with the same library that the program reads with.

use std::process::Command;

use aldaas_testbed::Testbed;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::types::{BucketCannedAcl, ObjectCannedAcl};

/// Adds what the test bed's S3 needs.
pub fn with_s3<'a>(command: &'a mut Command, bed: &Testbed) -> &'a mut Command {
    let s3 = bed.s3();
    command
        .env("AWS_ENDPOINT_URL", &s3.endpoint)
        .env("AWS_ACCESS_KEY_ID", &s3.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &s3.secret_key)
        .env("AWS_REGION", &s3.region)
}

/// An empty bucket. Dropping it removes it with all that is in it.
pub struct Bucket {
    name: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    pub fn new(bed: &Testbed) -> Bucket {
        let s3 = bed.s3();
        Bucket::with_keys(bed, &s3.access_key, &s3.secret_key)
    }

    fn with_keys(bed: &Testbed, key: &str, secret: &str) -> Bucket {
        let s3 = bed.s3();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&s3.endpoint)
            .region(Region::new(s3.region.clone()))
            .credentials_provider(Credentials::new(key, secret, None, None, "test"))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .force_path_style(true)
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (name, client) = (aldaas_testbed::unique("restore"), Client::from_conf(config));
        runtime.block_on(client.create_bucket().bucket(&name).send()).unwrap();
        Bucket { name, client, runtime }
    }

    /// `s3://bucket/key`
    pub fn at(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    pub fn put(&self, key: &str, content: &[u8]) {
        let put = self.client.put_object().bucket(&self.name).key(key).body(content.to_vec().into());
        self.runtime.block_on(put.send()).unwrap();
    }

    /// Small objects, many at once.
    pub fn put_all(&self, keys: &[String]) {
        self.runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for key in keys {
                if tasks.len() >= 16 {
                    tasks.join_next().await.unwrap().unwrap();
                }
                let put = self.client.put_object().bucket(&self.name).key(key).body(b"x".to_vec().into());
                tasks.spawn(async { put.send().await.map(|_| ()).unwrap() });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
    }

    /// Lets everybody read the bucket, and this object in it.
    pub fn put_public(&self, key: &str, content: &[u8]) {
        self.put(key, content);
        let open = self.client.put_bucket_acl().bucket(&self.name).acl(BucketCannedAcl::PublicRead);
        self.runtime.block_on(open.send()).unwrap();
        let open = self.client.put_object_acl().bucket(&self.name).key(key).acl(ObjectCannedAcl::PublicRead);
        self.runtime.block_on(open.send()).unwrap();
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            loop {
                let listed = self.client.list_objects_v2().bucket(&self.name).send().await.unwrap();
                let objects = listed.contents.unwrap_or_default();
                if objects.is_empty() {
                    break;
                }
                let mut tasks = tokio::task::JoinSet::new();
                for object in objects {
                    if tasks.len() >= 16 {
                        tasks.join_next().await;
                    }
                    let delete = self.client.delete_object().bucket(&self.name).key(object.key.unwrap());
                    tasks.spawn(async { delete.send().await.is_ok() });
                }
                while tasks.join_next().await.is_some() {}
            }
            self.client.delete_bucket().bucket(&self.name).send().await.unwrap();
        });
    }
}

/// Another user of the same store, with a bucket. Dropping it removes both.
pub struct Stranger<'a> {
    bed: &'a Testbed,
    name: String,
    bucket: Option<Bucket>,
}

impl<'a> Stranger<'a> {
    pub fn new(bed: &'a Testbed) -> Stranger<'a> {
        let name = aldaas_testbed::unique("stranger");
        radosgw_admin(
            bed,
            &[
                "user",
                "create",
                "--display-name",
                "x",
                "--access-key",
                &name,
                "--secret",
                "s",
                "--uid",
                &name,
            ],
        );
        Stranger { bed, bucket: Some(Bucket::with_keys(bed, &name, "s")), name }
    }

    pub fn bucket(&self) -> &Bucket {
        self.bucket.as_ref().unwrap()
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        drop(self.bucket.take());
        radosgw_admin(self.bed, &["user", "rm", "--uid", &self.name]);
    }
}

fn radosgw_admin(bed: &Testbed, args: &[&str]) {
    let out = Command::new("radosgw-admin").arg("-c").arg(bed.ceph_conf()).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
