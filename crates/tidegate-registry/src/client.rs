//! The registry's calls, as far as a loader and a reader need them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{describe_transport, interpret};
use crate::config::{Location, RegistryConfig};
use crate::endpoint::{Endpoint, Request, root_certificates};
use crate::error::{Error, ErrorKind};
use crate::references;
use crate::retry::{self, Failure};

/// What may stand in a path segment as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Entries a cache may have; a topic uses a few schemas, so only damaged or hostile data comes near.
const MAX_CACHED: usize = 10_000;
/// Schemas that one may take types from, directly or not.
pub const MAX_REFERENCES: usize = 1_000;
/// The registry's codes for what is not there: subject, version, schema, and a level of the subject's own.
const SUBJECT_MISSING: u32 = 40401;
const VERSION_MISSING: u32 = 40402;
const SCHEMA_MISSING: u32 = 40403;
const LEVEL_MISSING: u32 = 40408;

/// A version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegisteredSchema {
    /// The subject asked for.
    pub subject: String,
    /// The schema's id, as it stands in every record.
    pub id: u32,
    /// The version within the subject, from 1.
    pub version: u32,
    /// The Avro schema as JSON.
    pub schema: String,
    /// Schemas that this one needs to be complete.
    pub references: Vec<Reference>,
}

/// A schema as it is handed to a registry. A text alone is one without references.
#[derive(Debug, Clone, Copy)]
pub struct NewSchema<'a> {
    /// The Avro schema as JSON.
    pub text: &'a str,
    /// The types it takes from other subjects.
    pub references: &'a [Reference],
}

impl<'a> From<&'a str> for NewSchema<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            text,
            references: &[],
        }
    }
}

impl<'a> From<&'a RegisteredSchema> for NewSchema<'a> {
    fn from(schema: &'a RegisteredSchema) -> Self {
        Self {
            text: &schema.schema,
            references: &schema.references,
        }
    }
}

impl<'a> From<&'a String> for NewSchema<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

/// A named type that a schema takes from another subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The full name of the type.
    pub name: String,
    /// The subject that defines it.
    pub subject: String,
    /// The version of that subject.
    pub version: u32,
}

/// Whether a schema may become the next version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compatibility {
    /// It may.
    pub ok: bool,
    /// The registry's reasons if it may not; some registries give none.
    pub messages: Vec<String>,
}

/// A registry. Share it by reference: all calls take `&self`, also from several threads.
pub struct Registry {
    endpoints: Vec<Endpoint>,
    timeout: Duration,
    /// The URL that answered last, by number.
    current: AtomicUsize,
    schemas: Mutex<HashMap<u32, String>>,
    ids: Mutex<HashMap<(String, String), u32>>,
}

#[derive(Debug, Deserialize)]
struct VersionAnswer {
    subject: String,
    id: u32,
    version: u32,
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
}

#[derive(Debug, Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
}

#[derive(Debug, Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Debug, Deserialize)]
struct CompatibilityAnswer {
    is_compatible: bool,
    messages: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct LevelAnswer {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

impl Registry {
    /// Prepares to ask the registry; nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: a URL, a credential or the CA file cannot be used.
    pub fn new(config: RegistryConfig) -> Result<Self, Error> {
        let roots = root_certificates(config.ca_file.as_deref())?;
        let locations = Location::parse_all(&config)?;
        Ok(Self {
            endpoints: locations
                .into_iter()
                .map(|location| Endpoint::new(location, &roots))
                .collect(),
            timeout: config.timeout,
            current: AtomicUsize::new(0),
            schemas: Mutex::default(),
            ids: Mutex::default(),
        })
    }

    /// The newest version of `subject`; none if there is no such subject.
    ///
    /// # Errors
    /// Any kind but [`ErrorKind::NotFound`]; [`ErrorKind::Unsupported`] for a schema that is not Avro.
    pub fn latest(&self, subject: &str) -> Result<Option<RegisteredSchema>, Error> {
        let path = format!("/subjects/{}/versions/latest", segment(subject));
        let found = absent(
            self.call(Request::Get(&path)),
            &[SUBJECT_MISSING, VERSION_MISSING],
        )?;
        found.map(|answer| registered(answer, subject)).transpose()
    }

    /// One version of `subject`; none if there is no such subject or version.
    ///
    /// # Errors
    /// As [`latest`](Self::latest).
    pub fn version(&self, subject: &str, version: u32) -> Result<Option<RegisteredSchema>, Error> {
        let path = format!("/subjects/{}/versions/{version}", segment(subject));
        let found = absent(
            self.call(Request::Get(&path)),
            &[SUBJECT_MISSING, VERSION_MISSING],
        )?;
        found.map(|answer| registered(answer, subject)).transpose()
    }

    /// The schema with the types it takes from other subjects, and those they take, put into it. A schema without references stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`] when a subject or version that is referred to is not there, something is no JSON, or there are more than
    /// [`MAX_REFERENCES`] of them; any other kind.
    pub fn complete<'s>(&self, schema: impl Into<NewSchema<'s>>) -> Result<String, Error> {
        let schema = schema.into();
        if schema.references.is_empty() {
            return Ok(schema.text.to_owned());
        }
        let (mut parts, mut seen) = (Vec::new(), HashSet::new());
        let mut open = schema.references.to_vec();
        while let Some(reference) = open.pop() {
            let Reference {
                name,
                subject,
                version,
            } = &reference;
            if !seen.insert((subject.clone(), *version)) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                let message =
                    format!("the schema takes types from more than {MAX_REFERENCES} others");
                return Err(Error::new(ErrorKind::InvalidSchema, message));
            }
            let found = self.version(subject, *version)?.ok_or_else(|| {
                let message = format!(
                    "the schema takes the type {name} from version {version} of subject '{subject}', which the registry does not have"
                );
                Error::new(ErrorKind::InvalidSchema, message)
            })?;
            open.extend(found.references);
            parts.push(found.schema);
        }
        references::complete(schema.text, &parts).map_err(|error| {
            let message = "the schema, or one that it takes types from, is not JSON";
            Error::new(ErrorKind::InvalidSchema, message).with_source(error)
        })
    }

    /// The Avro schema with that id, [complete](Self::complete); asked for once.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown id; [`ErrorKind::Unsupported`] for a schema that is not Avro; any other kind.
    pub fn by_id(&self, id: u32) -> Result<String, Error> {
        if let Some(known) = lock(&self.schemas).get(&id) {
            return Ok(known.clone());
        }
        let answer: SchemaAnswer = self.call(Request::Get(&format!("/schemas/ids/{id}")))?;
        let what = format!("the schema with id {id}");
        check_type(answer.schema_type.as_deref(), &what)?;
        let schema = self.complete(NewSchema {
            text: &answer.schema,
            references: &answer.references.unwrap_or_default(),
        })?;
        remember(&self.schemas, id, schema.clone());
        Ok(schema)
    }

    /// Makes `schema` (Avro, JSON) the newest version of `subject`, unless the subject has it already, and answers its id. The same question is
    /// not asked twice.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] with the registry's reasons, [`ErrorKind::InvalidSchema`], any other kind.
    pub fn register<'s>(
        &self,
        subject: &str,
        schema: impl Into<NewSchema<'s>>,
    ) -> Result<u32, Error> {
        let body = schema_body(schema.into());
        let key = (subject.to_owned(), body);
        if let Some(id) = lock(&self.ids).get(&key) {
            return Ok(*id);
        }
        let path = format!("/subjects/{}/versions", segment(subject));
        let answer: IdAnswer = self.call(Request::Post(&path, &key.1))?;
        remember(&self.ids, key, answer.id);
        Ok(answer.id)
    }

    /// The version under which `subject` knows this very schema; none if it does not.
    ///
    /// # Errors
    /// Any kind but [`ErrorKind::NotFound`].
    pub fn lookup<'s>(
        &self,
        subject: &str,
        schema: impl Into<NewSchema<'s>>,
    ) -> Result<Option<RegisteredSchema>, Error> {
        let path = format!("/subjects/{}", segment(subject));
        let answer = self.call(Request::Post(&path, &schema_body(schema.into())));
        let found = absent(answer, &[SUBJECT_MISSING, VERSION_MISSING, SCHEMA_MISSING])?;
        found.map(|answer| registered(answer, subject)).transpose()
    }

    /// Whether `schema` could be registered under `subject` now, by the level in force there. A subject without versions takes anything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`], any other kind.
    pub fn compatible<'s>(
        &self,
        subject: &str,
        schema: impl Into<NewSchema<'s>>,
    ) -> Result<Compatibility, Error> {
        let path = format!("/compatibility/subjects/{}/versions", segment(subject));
        let body = schema_body(schema.into());
        let answer = match self.call(Request::Post(&format!("{path}?verbose=true"), &body)) {
            // Older registries compare with one version only.
            Err(error)
                if error.kind() == ErrorKind::NotARegistry && self.versions(subject).is_ok() =>
            {
                self.call(Request::Post(&format!("{path}/latest?verbose=true"), &body))
            }
            answer => answer,
        };
        let found: Option<CompatibilityAnswer> =
            absent(answer, &[SUBJECT_MISSING, VERSION_MISSING])?;
        Ok(match found {
            Some(answer) => Compatibility {
                ok: answer.is_compatible,
                messages: answer.messages.unwrap_or_default(),
            },
            None => Compatibility {
                ok: true,
                messages: Vec::new(),
            },
        })
    }

    /// The names of all subjects.
    ///
    /// # Errors
    /// Any kind.
    pub fn subjects(&self) -> Result<Vec<String>, Error> {
        self.call(Request::Get("/subjects"))
    }

    /// The version numbers of a subject, ascending; empty if there is no such subject.
    ///
    /// # Errors
    /// Any kind but [`ErrorKind::NotFound`].
    pub fn versions(&self, subject: &str) -> Result<Vec<u32>, Error> {
        let path = format!("/subjects/{}/versions", segment(subject));
        let found = absent(self.call(Request::Get(&path)), &[SUBJECT_MISSING])?;
        Ok(found.unwrap_or_default())
    }

    /// The compatibility level in force for `subject`: its own, or the global one. In Confluent's words: `BACKWARD`, `FULL_TRANSITIVE`, ...
    ///
    /// # Errors
    /// Any kind but [`ErrorKind::NotFound`].
    pub fn config(&self, subject: &str) -> Result<String, Error> {
        let path = format!("/config/{}?defaultToGlobal=true", segment(subject));
        let own: Option<LevelAnswer> = absent(
            self.call(Request::Get(&path)),
            &[SUBJECT_MISSING, LEVEL_MISSING],
        )?;
        match own {
            Some(answer) => Ok(answer.level),
            None => Ok(self.call::<LevelAnswer>(Request::Get("/config"))?.level),
        }
    }

    /// Sets the compatibility level of `subject`, or with none the global one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSchema`] for a level the registry does not know, any other kind.
    pub fn set_config(&self, subject: Option<&str>, level: &str) -> Result<(), Error> {
        let path = subject.map_or("/config".to_owned(), |subject| {
            format!("/config/{}", segment(subject))
        });
        let body = json!({"compatibility": level}).to_string();
        self.call::<Value>(Request::Put(&path, &body)).map(drop)
    }

    /// Asks until there is a final answer or the time is over: see [`retry`].
    fn call<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Error> {
        let first = self.current.load(Ordering::Relaxed);
        let (url, result) = retry::run(self.timeout, self.endpoints.len(), first, |url, time| {
            let endpoint = &self.endpoints[url];
            attempt(endpoint, request, time).map_err(|failure| Failure {
                error: failure.error.at(format_args!(
                    "registry {}: {request}",
                    endpoint.location.base
                )),
                ..failure
            })
        })?;
        self.current.store(url, Ordering::Relaxed);
        Ok(result)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("endpoints", &self.endpoints)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn attempt<T: DeserializeOwned>(
    endpoint: &Endpoint,
    request: Request<'_>,
    time: Duration,
) -> Result<T, Failure> {
    match endpoint.send(request, time) {
        Ok(answer) => interpret(&answer, &endpoint.location.auth).map_err(|error| Failure {
            error: without_secrets(error, endpoint),
            verdict: retry::judge_status(answer.status, answer.retry_after),
        }),
        Err(error) => {
            let (kind, verdict) = retry::judge_transport(&error, endpoint.location.is_https);
            Err(Failure {
                error: Error::new(kind, describe_transport(&error)).with_source(error),
                verdict,
            })
        }
    }
}

/// A server that repeats the credentials in its message must not bring them into ours.
fn without_secrets(error: Error, endpoint: &Endpoint) -> Error {
    let text = error.to_string();
    let mut shown = text.clone();
    for secret in endpoint.secrets() {
        shown = shown.replace(secret, "***");
    }
    if shown == text {
        return error;
    }
    Error::new(error.kind(), shown).with_code(error.registry_code())
}

/// Turns "there is no such thing", by one of `codes`, into none.
fn absent<T>(answer: Result<T, Error>, codes: &[u32]) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && error
                    .registry_code()
                    .is_some_and(|code| codes.contains(&code)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn registered(answer: VersionAnswer, subject: &str) -> Result<RegisteredSchema, Error> {
    let what = format!("version {} of subject '{subject}'", answer.version);
    check_type(answer.schema_type.as_deref(), &what)?;
    Ok(RegisteredSchema {
        subject: answer.subject,
        id: answer.id,
        version: answer.version,
        schema: answer.schema,
        references: answer.references.unwrap_or_default(),
    })
}

/// Registries leave the type away for Avro.
fn check_type(schema_type: Option<&str>, what: &str) -> Result<(), Error> {
    match schema_type {
        None | Some("" | "AVRO") => Ok(()),
        Some(other) => {
            let message = format!("{what} is of type {other}; only AVRO is supported");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

fn schema_body(schema: NewSchema<'_>) -> String {
    let mut body = json!({"schema": schema.text, "schemaType": "AVRO"});
    if !schema.references.is_empty() {
        body["references"] = json!(schema.references);
    }
    body.to_string()
}

fn segment(subject: &str) -> String {
    utf8_percent_encode(subject, SEGMENT).to_string()
}

/// A panic elsewhere leaves a cache whole: entries are inserted in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember<K: std::hash::Hash + Eq, V>(cache: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut cache = lock(cache);
    if cache.len() >= MAX_CACHED {
        cache.clear();
    }
    cache.insert(key, value);
}
