use std::collections::BTreeMap;

use aldaas_api::context::WantedClone;
use aldaas_api::{GoldenImageName, Version};

use super::*;
use crate::ports::{ClonePolicy, Labels, Selector, StoragePolicy};

/// What is known, by hand.
#[derive(Default)]
struct Known {
    databases: BTreeMap<DatabaseName, Arc<Database>>,
    namespaces: BTreeMap<String, Arc<Labels>>,
    away: bool,
}

impl Known {
    fn look(&self) -> Result<(), Away> {
        if self.away { Err(Away("connection refused".into())) } else { Ok(()) }
    }
}

impl Directory for Known {
    fn database(&self, name: &DatabaseName) -> Result<Option<Arc<Database>>, Away> {
        self.look().map(|()| self.databases.get(name).cloned())
    }

    fn databases(&self) -> Result<Vec<DatabaseName>, Away> {
        self.look().map(|()| self.databases.keys().cloned().collect())
    }

    fn namespace(&self, name: &str) -> Result<Option<Arc<Labels>>, Away> {
        self.look().map(|()| self.namespaces.get(name).cloned())
    }
}

fn name(text: &str) -> DatabaseName {
    text.parse().unwrap()
}

fn database(text: &str, namespaces: Option<Selector>) -> (DatabaseName, Arc<Database>) {
    let storage = StoragePolicy {
        size: aldaas_golden::BlankSize { bytes: 1 << 30, object_size: None },
        filesystem: aldaas_volume::Filesystem::Ext4,
        owner: (999, 999),
    };
    let clones = ClonePolicy::default();
    let contact = Some("the shop team, #shop".to_owned());
    let of = Database { name: name(text), namespaces, contact, clones, storage, port: 5432 };
    (name(text), Arc::new(of))
}

fn team(value: &str) -> Labels {
    Labels::from([("team".to_owned(), value.to_owned())])
}

/// `closed`: nothing said; `open`: every namespace; `shop`: the shop team's.
fn known() -> Known {
    let databases = [
        database("closed", None),
        database("open", Some(Selector::default())),
        database("shop", Some(Selector { labels: team("shop"), expressions: vec![] })),
    ];
    let namespaces = [("shop-ci", "shop"), ("web", "web"), ("aldaas", "platform")];
    let namespaces = namespaces.map(|(name, labels)| (name.to_owned(), Arc::new(team(labels))));
    Known { databases: databases.into(), namespaces: namespaces.into(), away: false }
}

fn own() -> Own {
    Own { namespace: "aldaas".into(), ingest_account: "aldaas-ingest".into() }
}

fn asked(wanted: Wanted, namespace: &str, account: &str) -> VolumeContext {
    let pod = PodRef {
        namespace: namespace.into(),
        name: "pod".into(),
        uid: "1".into(),
        service_account: account.into(),
    };
    VolumeContext { wanted, pod }
}

fn clone_of(database: &str, namespace: &str) -> VolumeContext {
    let wanted = WantedClone {
        database: name(database),
        version: Version::Latest,
        pinned: None,
        name: None,
        ttl: None,
    };
    asked(Wanted::Clone(wanted), namespace, "default")
}

fn answer(context: &VolumeContext) -> Result<(), Denied> {
    decide(context, &known(), &own()).map(|database| assert_eq!(&database.name, context.wanted.database()))
}

#[test]
fn a_namespace_may_clone_what_the_database_allows_it_and_nothing_else() {
    for (database, namespace, may) in [
        ("closed", "aldaas", true),
        ("closed", "web", false),
        ("closed", "kube-system", false),
        ("open", "web", true),
        ("open", "not-seen-yet", true),
        ("shop", "shop-ci", true),
        ("shop", "web", false),
        // A selector says it all: aldaas' own namespace is one like any other then.
        ("shop", "aldaas", false),
    ] {
        let answer = answer(&clone_of(database, namespace));
        assert_eq!(answer.is_ok(), may, "{database} from {namespace}: {answer:?}");
        if let Err(denied) = answer {
            assert_eq!(denied.code(), Code::PermissionDenied);
        }
    }
}

#[test]
fn a_denial_says_whom_to_ask() {
    let denied = answer(&clone_of("shop", "web")).unwrap_err();
    assert_eq!(denied.to_string(), "namespace web may not clone database shop: ask the shop team, #shop");
    let nobody = Denied::NoAccess { namespace: "web".into(), database: name("shop"), contact: None };
    assert!(nobody.to_string().ends_with("spec.access.namespaceSelector of Database shop"));
}

#[test]
fn an_unknown_database_is_told_with_the_nearest_that_may_be_cloned() {
    let denied = answer(&clone_of("shpo", "shop-ci")).unwrap_err();
    assert_eq!(denied.code(), Code::NotFound);
    assert_eq!(denied.to_string(), "there is no database \"shpo\": did you mean \"shop\"?");
    // Others learn nothing of it.
    let denied = answer(&clone_of("shpo", "web")).unwrap_err();
    assert_eq!(denied.to_string(), "there is no database \"shpo\"");
    let denied = answer(&clone_of("customers", "shop-ci")).unwrap_err();
    assert_eq!(denied, Denied::NoDatabase { name: name("customers"), near: None });
}

#[test]
fn a_namespace_that_was_not_seen_yet_is_waited_for() {
    let denied = answer(&clone_of("shop", "not-seen-yet")).unwrap_err();
    assert_eq!((denied.code(), denied), (Code::Unavailable, Denied::UnknownNamespace("not-seen-yet".into())));
}

#[test]
fn build_and_candidate_volumes_are_for_the_ingest_account_of_aldaas_own_namespace_alone() {
    let image: GoldenImageName = "closed-20261123t033000z".parse().unwrap();
    for wanted in [Wanted::Build(image.clone()), Wanted::Candidate(image)] {
        for (namespace, account, may) in [
            ("aldaas", "aldaas-ingest", true),
            ("aldaas", "default", false),
            ("web", "aldaas-ingest", false),
            ("web", "default", false),
            ("", "", false),
        ] {
            let answer = answer(&asked(wanted.clone(), namespace, account));
            assert_eq!(answer.is_ok(), may, "{wanted:?} for {namespace}/{account}: {answer:?}");
            assert!(may || answer.unwrap_err().code() == Code::PermissionDenied);
        }
    }
}

#[test]
fn while_nothing_was_ever_known_nothing_is_decided() {
    let known = Known { away: true, ..known() };
    let denied = decide(&clone_of("open", "web"), &known, &own()).unwrap_err();
    assert_eq!(denied.code(), Code::Unavailable, "kubelet asks again");
}
