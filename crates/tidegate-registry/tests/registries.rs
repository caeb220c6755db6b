//! The client on the embedded registry and on a real one: the same calls, the same answers.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use tidegate_registry::{Auth, ErrorKind, NewSchema, Reference, Registry, RegistryConfig};
use tidegate_testkit::apicurio::{RegistryOptions, USERS};
use tidegate_testkit::{Kind, for_each_registry, services, unique_name};

fn open(url: &str) -> Registry {
    let mut config = RegistryConfig::new(url);
    config.timeout = Duration::from_secs(30);
    Registry::new(config).unwrap()
}

/// A record named R with the given fields, each `name: type`.
fn record(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, kind)| format!(r#"{{"name":"{name}","type":{kind}}}"#))
        .collect();
    format!(
        r#"{{"type":"record","name":"R","fields":[{}]}}"#,
        fields.join(",")
    )
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_schema_is_registered_found_and_read_back() {
    for_each_registry(|_, url| {
        let registry = open(url);
        let subject = unique_name("registered");
        assert_eq!(registry.latest(&subject).unwrap(), None);
        assert_eq!(registry.versions(&subject).unwrap(), Vec::<u32>::new());
        let one = record(&[("a", "\"int\"")]);
        assert_eq!(registry.lookup(&subject, &one).unwrap(), None);
        let id = registry.register(&subject, &one).unwrap();
        assert!(id > 0);
        // Asked of the registry, not of this client's memory.
        assert_eq!(open(url).register(&subject, &one).unwrap(), id);
        let latest = registry.latest(&subject).unwrap().unwrap();
        assert_eq!(
            (latest.id, latest.version, latest.subject.as_str()),
            (id, 1, subject.as_str())
        );
        assert_eq!(json(&latest.schema), json(&one));
        assert!(latest.references.is_empty());
        assert_eq!(json(&registry.by_id(id).unwrap()), json(&one));

        let two = record(&[
            ("a", "\"int\""),
            ("b", r#"["null","string"],"default":null"#),
        ]);
        assert_eq!(registry.lookup(&subject, &two).unwrap(), None);
        let second = registry.register(&subject, &two).unwrap();
        assert_ne!(second, id);
        assert_eq!(registry.lookup(&subject, &one).unwrap().unwrap().version, 1);
        assert_eq!(registry.latest(&subject).unwrap().unwrap().version, 2);
        assert_eq!(registry.versions(&subject).unwrap(), [1, 2]);
        assert!(registry.subjects().unwrap().contains(&subject));
    });
}

#[test]
fn ids_are_global() {
    for_each_registry(|_, url| {
        let registry = open(url);
        let schema = record(&[(&unique_name("f").replace('-', "_"), "\"int\"")]);
        let one = registry.register(&unique_name("one"), &schema).unwrap();
        let two = registry.register(&unique_name("two"), &schema).unwrap();
        assert_eq!(one, two);
    });
}

#[test]
fn incompatible_schemas_are_told_with_the_reason() {
    for_each_registry(|_, url| {
        let registry = open(url);
        let subject = unique_name("incompatible");
        let old = record(&[("a", "\"int\"")]);
        let new = record(&[("a", "\"int\""), ("b", "\"string\"")]);
        assert!(
            registry.compatible(&subject, &new).unwrap().ok,
            "nothing to compare with"
        );
        registry.register(&subject, &old).unwrap();
        let answer = registry.compatible(&subject, &new).unwrap();
        assert!(!answer.ok);
        let error = registry.register(&subject, &new).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains(&subject), "{error}");
        assert_eq!(registry.versions(&subject).unwrap(), [1]);
        let wider = record(&[("a", "\"long\"")]);
        assert!(registry.compatible(&subject, &wider).unwrap().ok);
        registry.register(&subject, &wider).unwrap();
    });
}

#[test]
fn types_of_other_subjects_are_put_into_the_schema() {
    for_each_registry(|kind, url| {
        let registry = open(url);
        let (money, subject) = (unique_name("money"), unique_name("order"));
        let text =
            r#"{"type":"record","name":"acme.Money","fields":[{"name":"amount","type":"long"}]}"#;
        registry.register(&money, text).unwrap();
        let references = [Reference {
            name: "acme.Money".to_owned(),
            subject: money.clone(),
            version: 1,
        }];
        let order = r#"{"type":"record","name":"Order","fields":[
            {"name":"price","type":"acme.Money"},{"name":"tip","type":["null","acme.Money"],"default":null}]}"#;
        let order = NewSchema {
            text: order,
            references: &references,
        };
        if kind == Kind::Embedded {
            let error = registry.register(&subject, order).unwrap_err();
            assert!(
                error.to_string().contains("no schema references"),
                "{error}"
            );
            return;
        }
        assert!(registry.compatible(&subject, order).unwrap().ok);
        let id = registry.register(&subject, order).unwrap();
        let latest = registry.latest(&subject).unwrap().unwrap();
        assert_eq!(
            (latest.id, latest.references.as_slice()),
            (id, &references[..])
        );
        assert_eq!(registry.lookup(&subject, order).unwrap().unwrap().id, id);
        let whole = json(&open(url).by_id(id).unwrap());
        assert_eq!(whole["fields"][0]["type"]["fields"][0]["name"], "amount");
        assert_eq!(whole["fields"][1]["type"][1], "acme.Money");
        assert_eq!(whole, json(&registry.complete(order).unwrap()));
    });
}

#[test]
fn the_level_of_a_subject_decides() {
    for_each_registry(|kind, url| {
        let registry = open(url);
        let subject = unique_name("level");
        assert_eq!(registry.config(&subject).unwrap(), "BACKWARD");
        registry
            .register(&subject, &record(&[("a", "\"int\"")]))
            .unwrap();
        registry.set_config(Some(&subject), "FORWARD").unwrap();
        assert_eq!(registry.config(&subject).unwrap(), "FORWARD");
        registry
            .register(&subject, &record(&[("a", "\"int\""), ("b", "\"string\"")]))
            .unwrap();
        registry
            .set_config(Some(&subject), "FULL_TRANSITIVE")
            .unwrap();
        let answer = registry
            .compatible(&subject, &record(&[("c", "\"string\"")]))
            .unwrap();
        assert!(!answer.ok);
        if kind == Kind::Embedded {
            let all = answer.messages.join("\n");
            assert!(
                all.contains("version 1")
                    && all.contains("version 2")
                    && all.contains("FULL_TRANSITIVE"),
                "{all}"
            );
        }
        let error = registry.set_config(Some(&subject), "SIDEWAYS").unwrap_err();
        assert!(
            error.to_string().contains("SIDEWAYS") || kind == Kind::Real,
            "{error}"
        );
    });
}

#[test]
fn what_is_no_schema_is_refused() {
    for_each_registry(|_, url| {
        let registry = open(url);
        let error = registry
            .register(&unique_name("invalid"), r#"{"type":"record"}"#)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.registry_code()),
            (ErrorKind::InvalidSchema, Some(42201)),
            "{error}"
        );
    });
}

#[test]
fn an_unknown_id_is_not_found() {
    for_each_registry(|_, url| {
        let error = open(url).by_id(2_000_000_000).unwrap_err();
        assert_eq!(
            (error.kind(), error.registry_code()),
            (ErrorKind::NotFound, Some(40403)),
            "{error}"
        );
    });
}

#[test]
fn names_with_special_characters_are_names() {
    for_each_registry(|_, url| {
        let registry = open(url);
        let subject = format!("{} ü?&=#%2F+", unique_name("special"));
        let id = registry
            .register(&subject, &record(&[("a", "\"int\"")]))
            .unwrap();
        assert_eq!(registry.latest(&subject).unwrap().unwrap().id, id);
        assert!(registry.subjects().unwrap().contains(&subject));
    });
}

#[test]
fn a_wrong_path_is_not_an_empty_registry() {
    for_each_registry(|_, url| {
        let error = open(&format!("{url}/nowhere")).latest("s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotARegistry, "{error}");
    });
}

#[test]
fn rights_are_told_apart_by_a_registry_with_users() {
    let options = RegistryOptions {
        with_users: true,
        ..RegistryOptions::default()
    };
    let Some(server) = services::own_registry(&options) else {
        return;
    };
    let as_user = |user: &str, password: &str| {
        let mut config = RegistryConfig::new(server.url());
        config.auth = Auth::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        Registry::new(config).unwrap()
    };
    let schema = record(&[("a", "\"int\"")]);
    for (user, password, role) in USERS {
        let registry = as_user(user, password);
        registry.subjects().unwrap();
        let result = registry.register(&unique_name("rights"), &schema);
        if role == "sr-readonly" {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
        } else {
            result.unwrap();
        }
    }
    let error = as_user("writer", "wrong-secret").subjects().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(
        error.to_string().contains("'writer'") && !error.to_string().contains("wrong-secret"),
        "{error}"
    );
    let error = open(server.url()).subjects().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("none were given"), "{error}");
    let with_userinfo = server.url().replace("://", "://reader:reader-password@");
    open(&with_userinfo).subjects().unwrap();
}
