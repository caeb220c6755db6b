//! The registry as clients see it: requests over HTTP, and what is answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Store, router};

/// A registry on a port of its own. Dropping it is as abrupt as a kill: nothing is flushed or closed in order.
struct Served {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(dir: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_io()
            .build()
            .unwrap();
        let router = router(Arc::new(Store::open(dir).unwrap()));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            _runtime: runtime,
        }
    }

    /// Sends a request; answers status and body.
    fn ask(&self, request: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, text) = self.ask_text(request, &body);
        (status, serde_json::from_str(&text).unwrap())
    }

    fn ask_text(&self, request: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "{request} HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.to_ascii_lowercase()
                .contains("application/vnd.schemaregistry.v1+json"),
            "{head}"
        );
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask(&format!("GET {path}"), &Value::Null)
    }

    fn delete(&self, path: &str) -> (u16, Value) {
        self.ask(&format!("DELETE {path}"), &Value::Null)
    }

    fn register(&self, subject: &str, schema: &Value) -> (u16, Value) {
        self.ask(
            &format!("POST /subjects/{subject}/versions"),
            &schema_request(schema),
        )
    }
}

fn schema_request(schema: &Value) -> Value {
    json!({"schema": schema.to_string()})
}

fn record(fields: &Value) -> Value {
    json!({"type": "record", "name": "R", "fields": fields})
}

fn refusal(answer: &(u16, Value)) -> (u16, u64) {
    assert!(answer.1["message"].is_string(), "{answer:?}");
    (answer.0, answer.1["error_code"].as_u64().unwrap())
}

#[test]
fn what_keeps_a_schema_from_following_another_is_told() {
    let record = |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let old = record(r#"{"name":"a","type":"int"}"#);
    let new = record(r#"{"name":"a","type":"string"}"#);
    let found = super::incompatibilities("FULL", &new, &old);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("cannot read old data"), "{found:?}");
    assert!(super::incompatibilities("NONE", &new, &old).is_empty());
    assert!(super::incompatibilities("SIDEWAYS", &new, &old).is_empty());
}

#[test]
fn the_life_of_a_subject() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Served::start(dir.path());
    let one = record(&json!([{"name": "a", "type": "int"}]));
    let two = record(&json!([{"name": "a", "type": "long"}]));
    assert_eq!(registry.get("/subjects"), (200, json!([])));
    assert_eq!(registry.register("s", &one), (200, json!({"id": 1})));
    assert_eq!(registry.register("s", &two), (200, json!({"id": 2})));
    assert_eq!(registry.get("/subjects/s/versions"), (200, json!([1, 2])));
    let first = json!({"subject": "s", "version": 1, "id": 1, "schema": one.to_string()});
    assert_eq!(registry.get("/subjects/s/versions/1"), (200, first.clone()));
    assert_eq!(
        registry.ask("POST /subjects/s", &schema_request(&one)),
        (200, first)
    );
    assert_eq!(registry.get("/subjects/s/versions/latest").1["version"], 2);
    assert_eq!(
        registry.get("/subjects/s/versions/latest/schema"),
        (200, two.clone())
    );
    assert_eq!(
        registry.get("/schemas/ids/2"),
        (200, json!({"schema": two.to_string()}))
    );
    assert_eq!(registry.get("/schemas/ids/2/schema"), (200, two));
    assert_eq!(registry.get("/schemas/ids/1/subjects"), (200, json!(["s"])));
    assert_eq!(
        registry.get("/schemas/ids/1/versions"),
        (200, json!([{"subject": "s", "version": 1}]))
    );
    assert_eq!(registry.delete("/subjects/s/versions/1"), (200, json!(1)));
    assert_eq!(registry.get("/subjects/s/versions"), (200, json!([2])));
    assert_eq!(
        registry.get("/subjects/s/versions?deleted=true"),
        (200, json!([1, 2]))
    );
    assert_eq!(
        registry.delete("/subjects/s/versions/1?permanent=true"),
        (200, json!(1))
    );
    assert_eq!(refusal(&registry.get("/schemas/ids/1")), (404, 40403));
    assert_eq!(registry.delete("/subjects/s"), (200, json!([2])));
    assert_eq!(registry.get("/subjects"), (200, json!([])));
    assert_eq!(
        registry.get("/subjects?deleted=true&subjectPrefix=s"),
        (200, json!(["s"]))
    );
    assert_eq!(
        registry.delete("/subjects/s?permanent=true"),
        (200, json!([2]))
    );
    assert_eq!(refusal(&registry.delete("/subjects/s")), (404, 40401));
}

#[test]
fn what_is_refused_has_confluents_codes() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Served::start(dir.path());
    let one = record(&json!([{"name": "a", "type": "int"}]));
    registry.register("s", &one);
    let post = "POST /subjects/s/versions";
    for (request, body, expected) in [
        ("GET /subjects/none/versions", Value::Null, (404, 40401)),
        ("GET /subjects/s/versions/7", Value::Null, (404, 40402)),
        ("GET /subjects/s/versions/zero", Value::Null, (422, 42202)),
        ("GET /schemas/ids/9", Value::Null, (404, 40403)),
        (
            "POST /subjects/s",
            schema_request(&json!("string")),
            (404, 40403),
        ),
        (post, json!({"schema": "{"}), (422, 42201)),
        (post, json!({}), (422, 42201)),
        (
            post,
            json!({"schema": "\"int\"", "schemaType": "PROTOBUF"}),
            (422, 42201),
        ),
        (
            post,
            json!({"schema": "\"int\"", "references": [{"name": "n", "subject": "s", "version": 1}]}),
            (422, 42201),
        ),
        (post, json!([]), (400, 400)),
        (
            post,
            schema_request(&record(&json!([{"name": "b", "type": "int"}]))),
            (409, 409),
        ),
        (
            "PUT /config",
            json!({"compatibility": "SIDEWAYS"}),
            (422, 42203),
        ),
        ("GET /config/s", Value::Null, (404, 40408)),
        ("PUT /mode", json!({"mode": "READONLY"}), (422, 42205)),
        (
            "POST /compatibility/subjects/s/versions/7",
            schema_request(&one),
            (404, 40402),
        ),
        ("GET /nowhere", Value::Null, (404, 404)),
        ("DELETE /schemas/types", Value::Null, (405, 405)),
    ] {
        assert_eq!(
            refusal(&registry.ask(request, &body)),
            expected,
            "{request} {body}"
        );
    }
    assert_eq!(
        registry.get("/subjects/s/versions"),
        (200, json!([1])),
        "nothing of it was kept"
    );
    let too_large = format!(r#"{{"schema":"{}"}}"#, " ".repeat(9 << 20));
    assert_eq!(registry.ask_text(post, &too_large).0, 413);
}

#[test]
fn compatibility_is_told_by_the_level_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Served::start(dir.path());
    registry.register("s", &record(&json!([{"name": "a", "type": "int"}])));
    let narrower = schema_request(&record(
        &json!([{"name": "a", "type": "int"}, {"name": "b", "type": "int"}]),
    ));
    let latest = "POST /compatibility/subjects/s/versions/latest";
    assert_eq!(
        registry.ask(latest, &narrower),
        (200, json!({"is_compatible": false}))
    );
    let (_, verbose) = registry.ask(
        "POST /compatibility/subjects/s/versions?verbose=true",
        &narrower,
    );
    assert!(
        verbose["messages"][0]
            .as_str()
            .unwrap()
            .contains("field 'b'"),
        "{verbose}"
    );
    assert_eq!(
        registry.get("/config"),
        (200, json!({"compatibilityLevel": "BACKWARD"}))
    );
    let level = json!({"compatibility": "FORWARD"});
    assert_eq!(registry.ask("PUT /config/s", &level), (200, level.clone()));
    assert_eq!(
        registry.get("/config/s"),
        (200, json!({"compatibilityLevel": "FORWARD"}))
    );
    assert_eq!(
        registry.ask(latest, &narrower),
        (200, json!({"is_compatible": true}))
    );
    assert_eq!(
        registry.delete("/config/s"),
        (200, json!({"compatibilityLevel": "FORWARD"}))
    );
    assert_eq!(
        registry.get("/config/s?defaultToGlobal=true").1["compatibilityLevel"],
        "BACKWARD"
    );
    let unknown = registry.ask(
        "POST /compatibility/subjects/none/versions/latest",
        &narrower,
    );
    assert_eq!(unknown, (200, json!({"is_compatible": true})));
    assert_eq!(registry.get("/mode"), (200, json!({"mode": "READWRITE"})));
    assert_eq!(registry.get("/schemas/types"), (200, json!(["AVRO"])));
}

#[test]
fn what_was_answered_is_there_after_an_abrupt_end() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=5 {
        let registry = Served::start(dir.path());
        let schema = json!({"type": "enum", "name": format!("E{round}"), "symbols": ["A"]});
        assert_eq!(
            registry.register(&format!("s{round}"), &schema),
            (200, json!({"id": round}))
        );
        assert_eq!(registry.get("/subjects").1.as_array().unwrap().len(), round);
    }
}

#[test]
fn requests_at_once_give_one_id_per_schema() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Served::start(dir.path());
    let ids = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..16)
            .map(|number| {
                let registry = &registry;
                scope.spawn(move || {
                    let schema = json!({"type": "fixed", "name": "F", "size": number % 4 + 1});
                    registry.register(&format!("s{}", number % 4), &schema).1["id"]
                        .as_u64()
                        .unwrap()
                })
            })
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}
