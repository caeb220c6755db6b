//! The registry's HTTP face: one handler per path and method, each of which reads the request, asks the [`Store`] and words the answer.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::compatibility::Level;
use super::refusal::Refusal;
use super::schema::ParsedSchema;
use super::store::{RegisteredVersion, Selector, Store};

/// The media type of every answer.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Bytes a request body may have. A schema of a thousand columns takes about 100 KB.
const MAX_BODY: usize = 8 << 20;

type Shared = State<Arc<Store>>;
type Body = Result<Bytes, BytesRejection>;

/// The routes of Confluent's REST API over `store`.
pub(crate) fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/", get(async || success(json!({}))))
        .route("/schemas/types", get(async || success(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(schema_by_id))
        .route("/schemas/ids/{id}/schema", get(schema_text_by_id))
        .route("/schemas/ids/{id}/subjects", get(subjects_by_id))
        .route("/schemas/ids/{id}/versions", get(versions_by_id))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(lookup).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route(
            "/subjects/{subject}/versions/{version}",
            get(version).delete(delete_version),
        )
        .route(
            "/subjects/{subject}/versions/{version}/schema",
            get(version_text),
        )
        .route(
            "/compatibility/subjects/{subject}/versions",
            post(compatible_with_all),
        )
        .route(
            "/compatibility/subjects/{subject}/versions/{version}",
            post(compatible_with_one),
        )
        .route(
            "/config",
            get(global_level)
                .put(set_global_level)
                .delete(clear_global_level),
        )
        .route(
            "/config/{subject}",
            get(subject_level)
                .put(set_subject_level)
                .delete(clear_subject_level),
        )
        .route("/mode", get(mode).put(set_mode))
        .route("/mode/{subject}", get(mode).put(set_mode))
        .fallback(async || refuse(&Refusal::new(404, "HTTP 404 Not Found")))
        .method_not_allowed_fallback(async || {
            refuse(&Refusal::new(405, "HTTP 405 Method Not Allowed"))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(store)
}

fn success(body: Value) -> Response {
    reply(StatusCode::OK, body)
}

fn reply(status: StatusCode, body: Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, MEDIA_TYPE)],
        body.to_string(),
    )
        .into_response()
}

fn refuse(refusal: &Refusal) -> Response {
    let status =
        StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply(
        status,
        json!({"error_code": refusal.code, "message": refusal.message}),
    )
}

/// Runs `work` where it may wait for the disk, and words its result.
async fn answer(work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(body)) => success(body),
        Ok(Err(refusal)) => refuse(&refusal),
        Err(_) => refuse(&Refusal::new(
            50001,
            "the registry failed inside; its log has more",
        )),
    }
}

/// The options of a query string that this registry knows; others are ignored, as registries do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    deleted: bool,
    permanent: bool,
    verbose: bool,
    default_to_global: bool,
    subject_prefix: String,
}

impl Options {
    fn parse(query: Option<&str>) -> Self {
        let mut options = Self::default();
        for pair in query.unwrap_or("").split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let on = value.eq_ignore_ascii_case("true");
            match name {
                "deleted" => options.deleted = on,
                "permanent" => options.permanent = on,
                "verbose" => options.verbose = on,
                "defaultToGlobal" => options.default_to_global = on,
                "subjectPrefix" => options.subject_prefix = percent_decoded(value),
                _ => {}
            }
        }
        options
    }
}

/// Decodes `%2F` and the like; what is no such escape stands for itself.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match (
            bytes[at],
            escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (b'+', _) => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The body of a request that carries a schema.
#[derive(Debug, Deserialize)]
struct SchemaRequest {
    schema: Option<String>,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Value>,
}

fn parse_body<T: for<'de> Deserialize<'de>>(body: Body) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| {
        Refusal::new(
            u32::from(rejection.status().as_u16()),
            rejection.body_text(),
        )
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!(
            "the request's body is not the JSON expected: {error}"
        ))
    })
}

fn parse_schema(body: Body) -> Result<ParsedSchema, Refusal> {
    let request: SchemaRequest = parse_body(body)?;
    if let Some(other) = request
        .schema_type
        .filter(|kind| !kind.is_empty() && kind != "AVRO")
    {
        return Err(Refusal::invalid_schema(format!(
            "Invalid schema type {other}: the embedded registry holds AVRO schemas only"
        )));
    }
    if !request.references.is_empty() {
        return Err(Refusal::invalid_schema(
            "the embedded registry takes no schema references: put the referenced types into the schema itself",
        ));
    }
    let text = request.schema.filter(|text| !text.trim().is_empty());
    ParsedSchema::parse(&text.ok_or_else(|| Refusal::invalid_schema("Empty schema"))?)
}

fn parse_id(text: &str) -> Result<u32, Refusal> {
    text.parse()
        .map_err(|_| Refusal::new(404, format!("'{text}' is not a schema id")))
}

fn shown(version: RegisteredVersion) -> Value {
    json!({
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        "schema": version.schema,
    })
}

/// A schema as JSON of its own, not as a string in JSON.
fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

async fn schema_by_id(State(store): Shared, Path(id): Path<String>) -> Response {
    answer(move || Ok(json!({"schema": store.schema(parse_id(&id)?)?}))).await
}

async fn schema_text_by_id(State(store): Shared, Path(id): Path<String>) -> Response {
    answer(move || Ok(as_json(&store.schema(parse_id(&id)?)?))).await
}

async fn subjects_by_id(
    State(store): Shared,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        let uses = store.uses(parse_id(&id)?, Options::parse(query.as_deref()).deleted)?;
        let mut names: Vec<String> = uses.into_iter().map(|(subject, _)| subject).collect();
        names.dedup();
        Ok(json!(names))
    })
    .await
}

async fn versions_by_id(
    State(store): Shared,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        let uses = store.uses(parse_id(&id)?, Options::parse(query.as_deref()).deleted)?;
        let shown = uses
            .into_iter()
            .map(|(subject, version)| json!({"subject": subject, "version": version}));
        Ok(shown.collect())
    })
    .await
}

async fn subjects(State(store): Shared, RawQuery(query): RawQuery) -> Response {
    answer(move || {
        let options = Options::parse(query.as_deref());
        Ok(json!(
            store.subjects(&options.subject_prefix, options.deleted)
        ))
    })
    .await
}

async fn lookup(
    State(store): Shared,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    answer(move || {
        let deleted = Options::parse(query.as_deref()).deleted;
        // A missing subject is the better answer than a bad schema.
        store.versions(&subject, deleted)?;
        Ok(shown(store.lookup(
            &subject,
            &parse_schema(body)?,
            deleted,
        )?))
    })
    .await
}

async fn register(State(store): Shared, Path(subject): Path<String>, body: Body) -> Response {
    answer(move || Ok(json!({"id": store.register(&subject, &parse_schema(body)?)?}))).await
}

async fn versions(
    State(store): Shared,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        Ok(json!(store.versions(
            &subject,
            Options::parse(query.as_deref()).deleted
        )?))
    })
    .await
}

async fn version(
    State(store): Shared,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        let deleted = Options::parse(query.as_deref()).deleted;
        Ok(shown(store.version(
            &subject,
            Selector::parse(&version)?,
            deleted,
        )?))
    })
    .await
}

async fn version_text(
    State(store): Shared,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        let deleted = Options::parse(query.as_deref()).deleted;
        Ok(as_json(
            &store
                .version(&subject, Selector::parse(&version)?, deleted)?
                .schema,
        ))
    })
    .await
}

async fn delete_version(
    State(store): Shared,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        let permanent = Options::parse(query.as_deref()).permanent;
        Ok(json!(store.delete_version(
            &subject,
            Selector::parse(&version)?,
            permanent
        )?))
    })
    .await
}

async fn delete_subject(
    State(store): Shared,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        Ok(json!(store.delete_subject(
            &subject,
            Options::parse(query.as_deref()).permanent
        )?))
    })
    .await
}

async fn compatible_with_all(
    State(store): Shared,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    answer(move || compatibility(&store, &subject, None, query.as_deref(), body)).await
}

async fn compatible_with_one(
    State(store): Shared,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    answer(move || {
        compatibility(
            &store,
            &subject,
            Some(Selector::parse(&version)?),
            query.as_deref(),
            body,
        )
    })
    .await
}

fn compatibility(
    store: &Store,
    subject: &str,
    selector: Option<Selector>,
    query: Option<&str>,
    body: Body,
) -> Result<Value, Refusal> {
    let messages = store.problems(subject, selector, &parse_schema(body)?)?;
    let mut answer = json!({"is_compatible": messages.is_empty()});
    if Options::parse(query).verbose {
        answer["messages"] = json!(messages);
    }
    Ok(answer)
}

#[derive(Debug, Deserialize)]
struct LevelRequest {
    compatibility: String,
}

fn parse_level(body: Body) -> Result<Level, Refusal> {
    let request: LevelRequest = parse_body(body)?;
    Level::parse(&request.compatibility)
        .ok_or_else(|| Refusal::invalid_level(&request.compatibility))
}

async fn global_level(State(store): Shared) -> Response {
    answer(move || Ok(json!({"compatibilityLevel": store.global_level().to_string()}))).await
}

async fn set_global_level(State(store): Shared, body: Body) -> Response {
    answer(move || set_level(&store, None, body)).await
}

async fn clear_global_level(State(store): Shared) -> Response {
    answer(move || {
        let before = store.global_level();
        store.set_level(None, None)?;
        Ok(json!({"compatibilityLevel": before.to_string()}))
    })
    .await
}

async fn subject_level(
    State(store): Shared,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(move || {
        let level =
            store.subject_level(&subject, Options::parse(query.as_deref()).default_to_global)?;
        Ok(json!({"compatibilityLevel": level.to_string()}))
    })
    .await
}

async fn set_subject_level(
    State(store): Shared,
    Path(subject): Path<String>,
    body: Body,
) -> Response {
    answer(move || set_level(&store, Some(&subject), body)).await
}

async fn clear_subject_level(State(store): Shared, Path(subject): Path<String>) -> Response {
    answer(move || {
        let before = store.subject_level(&subject, false)?;
        store.set_level(Some(&subject), None)?;
        Ok(json!({"compatibilityLevel": before.to_string()}))
    })
    .await
}

fn set_level(store: &Store, subject: Option<&str>, body: Body) -> Result<Value, Refusal> {
    let level = parse_level(body)?;
    store.set_level(subject, Some(level))?;
    Ok(json!({"compatibility": level.to_string()}))
}

async fn mode() -> Response {
    success(json!({"mode": "READWRITE"}))
}

/// The mode cannot be changed; setting it to what it is succeeds.
async fn set_mode(body: Body) -> Response {
    answer(move || {
        let request: Value = parse_body(body)?;
        match request["mode"].as_str() {
            Some("READWRITE") => Ok(json!({"mode": "READWRITE"})),
            _ => Err(Refusal::mode_fixed()),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_ignored() {
        let options = Options::parse(Some(
            "deleted=true&normalize=true&subjectPrefix=a%2Fb+c%&verbose=TRUE",
        ));
        assert!(options.deleted && options.verbose && !options.permanent);
        assert_eq!(options.subject_prefix, "a/b c%");
        assert_eq!(Options::parse(None), Options::default());
    }
}
