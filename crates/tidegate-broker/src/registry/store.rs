//! What the registry knows: schemas by id, versions by subject, compatibility levels.
//!
//! All of it is in memory; each change is checked, written to the journal, and only then applied, by the same code that applies the
//! journal when it is opened. Ids are never given twice, not even after a permanent deletion.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::compatibility::Level;
use super::journal::{Entry, Journal};
use super::refusal::Refusal;
use super::schema::ParsedSchema;

/// Which version of a subject a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selector {
    /// The newest one that is not deleted.
    Latest,
    /// The one of this number.
    Number(u32),
}

impl Selector {
    /// Reads "latest", "-1" (which means the same) or a number.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "latest" | "-1" => Ok(Self::Latest),
            _ => match text.parse::<u32>() {
                Ok(number @ 1..=0x7fff_ffff) => Ok(Self::Number(number)),
                _ => Err(Refusal::invalid_version(text)),
            },
        }
    }
}

/// A version of a subject as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegisteredVersion {
    pub(super) subject: String,
    pub(super) version: u32,
    pub(super) id: u32,
    pub(super) schema: String,
}

/// The registry's durable state; shared by all requests.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    journal: Journal,
}

#[derive(Debug, Default)]
struct State {
    schemas: BTreeMap<u32, ParsedSchema>,
    ids: HashMap<String, u32>,
    subjects: BTreeMap<String, Subject>,
    level: Level,
    /// The highest id ever given.
    last_id: u32,
}

#[derive(Debug, Default)]
struct Subject {
    versions: BTreeMap<u32, Version>,
    level: Option<Level>,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    id: u32,
    deleted: bool,
}

impl Store {
    /// Opens the registry kept in `dir`, which must exist and be locked by the caller, or starts an empty one there.
    ///
    /// # Errors
    /// The journal cannot be read or written, or is damaged other than by a cut-off last line; the message names file and line.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let mut state = State::default();
        let journal = Journal::open(dir, |entry| state.apply(&entry))?;
        Ok(Self {
            inner: Mutex::new(Inner { state, journal }),
        })
    }

    /// A panic in another request leaves the state as it was before or after a change, never between: going on is sound.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the subjects that start with `prefix`; with `deleted` also those that have only deleted versions.
    pub(super) fn subjects(&self, prefix: &str, deleted: bool) -> Vec<String> {
        let inner = self.lock();
        let subjects = inner.state.subjects.iter();
        subjects
            .filter(|(name, subject)| {
                name.starts_with(prefix) && subject.visible(deleted).next().is_some()
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The version numbers of a subject, ascending.
    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<u32>, Refusal> {
        let inner = self.lock();
        Ok(inner
            .state
            .visible(subject, deleted)?
            .map(|(number, _)| number)
            .collect())
    }

    /// One version of a subject.
    pub(super) fn version(
        &self,
        subject: &str,
        selector: Selector,
        deleted: bool,
    ) -> Result<RegisteredVersion, Refusal> {
        self.lock().state.find(subject, selector, deleted)
    }

    /// The text of the schema with that id.
    pub(super) fn schema(&self, id: u32) -> Result<String, Refusal> {
        let inner = self.lock();
        let schema = inner
            .state
            .schemas
            .get(&id)
            .ok_or_else(|| Refusal::id_missing(id))?;
        Ok(schema.text.clone())
    }

    /// The subjects and versions that use the schema with that id.
    pub(super) fn uses(&self, id: u32, deleted: bool) -> Result<Vec<(String, u32)>, Refusal> {
        let inner = self.lock();
        if !inner.state.schemas.contains_key(&id) {
            return Err(Refusal::id_missing(id));
        }
        let mut uses = Vec::new();
        for (name, subject) in &inner.state.subjects {
            let of_subject = subject
                .visible(deleted)
                .filter(|(_, version)| version.id == id);
            uses.extend(of_subject.map(|(number, _)| (name.clone(), number)));
        }
        Ok(uses)
    }

    /// The version under which `subject` knows this very schema.
    pub(super) fn lookup(
        &self,
        subject: &str,
        schema: &ParsedSchema,
        deleted: bool,
    ) -> Result<RegisteredVersion, Refusal> {
        let inner = self.lock();
        let id = inner.state.ids.get(&schema.identity).copied();
        let found = inner
            .state
            .visible(subject, deleted)?
            .find(|(_, version)| Some(version.id) == id);
        let (number, _) = found.ok_or_else(Refusal::schema_missing)?;
        inner.state.find(subject, Selector::Number(number), deleted)
    }

    /// Makes `schema` a version of `subject` and answers its id. A schema the subject has already keeps its version.
    pub(super) fn register(&self, subject: &str, schema: &ParsedSchema) -> Result<u32, Refusal> {
        let mut inner = self.lock();
        let Inner { state, journal } = &mut *inner;
        let known = state.ids.get(&schema.identity).copied();
        let existing = state.subjects.get(subject);
        if let Some(id) = known
            && existing
                .is_some_and(|subject| subject.visible(false).any(|(_, version)| version.id == id))
        {
            return Ok(id);
        }
        let messages = state.problems(subject, None, schema);
        if !messages.is_empty() {
            return Err(Refusal::incompatible(subject, &messages));
        }
        let newest = existing.and_then(|subject| subject.versions.keys().next_back().copied());
        let id = known.unwrap_or(state.last_id + 1);
        let entry = Entry::Register {
            subject: subject.to_owned(),
            version: newest.unwrap_or(0) + 1,
            id,
            schema: schema.text.clone(),
        };
        commit(state, journal, &entry)?;
        Ok(id)
    }

    /// What keeps `schema` from becoming a version of `subject`: compared with one version, or (none given) with those its level asks for. A
    /// subject without versions takes anything.
    pub(super) fn problems(
        &self,
        subject: &str,
        selector: Option<Selector>,
        schema: &ParsedSchema,
    ) -> Result<Vec<String>, Refusal> {
        let inner = self.lock();
        let only = match selector {
            Some(Selector::Number(number)) => Some(
                inner
                    .state
                    .find(subject, Selector::Number(number), false)?
                    .version,
            ),
            Some(Selector::Latest) => inner
                .state
                .find(subject, Selector::Latest, false)
                .ok()
                .map(|found| found.version),
            None => None,
        };
        Ok(inner.state.problems(subject, only, schema))
    }

    /// The global level.
    pub(super) fn global_level(&self) -> Level {
        self.lock().state.level
    }

    /// A subject's own level; with `or_global` the one in force.
    pub(super) fn subject_level(&self, subject: &str, or_global: bool) -> Result<Level, Refusal> {
        let inner = self.lock();
        let own = inner
            .state
            .subjects
            .get(subject)
            .and_then(|subject| subject.level);
        own.or_else(|| or_global.then_some(inner.state.level))
            .ok_or_else(|| Refusal::level_not_configured(subject))
    }

    /// Sets (or with none takes back) the level of a subject, or the global one.
    pub(super) fn set_level(
        &self,
        subject: Option<&str>,
        level: Option<Level>,
    ) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let Inner { state, journal } = &mut *inner;
        let entry = Entry::Level {
            subject: subject.map(str::to_owned),
            level: level.map(|level| level.to_string()),
        };
        commit(state, journal, &entry)
    }

    /// Deletes a version: hides it, or (`permanent`, and only after that) removes it.
    pub(super) fn delete_version(
        &self,
        subject: &str,
        selector: Selector,
        permanent: bool,
    ) -> Result<u32, Refusal> {
        let mut inner = self.lock();
        let Inner { state, journal } = &mut *inner;
        let number = state.find(subject, selector, true)?.version;
        let deleted = state
            .subjects
            .get(subject)
            .and_then(|subject| subject.versions.get(&number))
            .is_some_and(|version| version.deleted);
        match (deleted, permanent) {
            (true, false) => return Err(Refusal::version_soft_deleted(subject, number)),
            (false, true) => return Err(Refusal::version_not_soft_deleted(subject, number)),
            _ => {}
        }
        let entry = Entry::Delete {
            subject: subject.to_owned(),
            versions: vec![number],
            permanent,
        };
        commit(state, journal, &entry)?;
        Ok(number)
    }

    /// Deletes all versions of a subject and answers their numbers.
    pub(super) fn delete_subject(
        &self,
        subject: &str,
        permanent: bool,
    ) -> Result<Vec<u32>, Refusal> {
        let mut inner = self.lock();
        let Inner { state, journal } = &mut *inner;
        let all: Vec<(u32, Version)> = state.visible(subject, true)?.collect();
        let visible = all.iter().any(|(_, version)| !version.deleted);
        match (visible, permanent) {
            (false, false) => return Err(Refusal::subject_soft_deleted(subject)),
            (true, true) => return Err(Refusal::subject_not_soft_deleted(subject)),
            _ => {}
        }
        let affected = all
            .into_iter()
            .filter(|(_, version)| permanent || !version.deleted);
        let versions: Vec<u32> = affected.map(|(number, _)| number).collect();
        let entry = Entry::Delete {
            subject: subject.to_owned(),
            versions: versions.clone(),
            permanent,
        };
        commit(state, journal, &entry)?;
        Ok(versions)
    }
}

/// Writes `entry` down, then makes it true.
fn commit(state: &mut State, journal: &mut Journal, entry: &Entry) -> Result<(), Refusal> {
    journal
        .append(entry)
        .map_err(|error| Refusal::storage(&error))?;
    state.apply(entry).map_err(|message| {
        Refusal::new(50001, format!("the registry contradicts itself: {message}"))
    })
}

impl Subject {
    fn visible(&self, deleted: bool) -> impl DoubleEndedIterator<Item = (u32, Version)> {
        self.versions
            .iter()
            .filter(move |(_, version)| deleted || !version.deleted)
            .map(|(number, version)| (*number, *version))
    }
}

impl State {
    fn visible(
        &self,
        subject: &str,
        deleted: bool,
    ) -> Result<impl DoubleEndedIterator<Item = (u32, Version)>, Refusal> {
        let found = self
            .subjects
            .get(subject)
            .filter(|found| found.visible(deleted).next().is_some());
        Ok(found
            .ok_or_else(|| Refusal::subject_missing(subject))?
            .visible(deleted))
    }

    fn find(
        &self,
        subject: &str,
        selector: Selector,
        deleted: bool,
    ) -> Result<RegisteredVersion, Refusal> {
        let mut visible = self.visible(subject, deleted)?;
        let (version, Version { id, .. }) = match selector {
            Selector::Latest => visible
                .next_back()
                .ok_or_else(|| Refusal::version_missing("latest"))?,
            Selector::Number(number) => visible
                .find(|(candidate, _)| *candidate == number)
                .ok_or_else(|| Refusal::version_missing(number))?,
        };
        let schema = self
            .schemas
            .get(&id)
            .ok_or_else(|| Refusal::id_missing(id))?;
        Ok(RegisteredVersion {
            subject: subject.to_owned(),
            version,
            id,
            schema: schema.text.clone(),
        })
    }

    /// See [`Store::problems`].
    fn problems(&self, subject: &str, only: Option<u32>, schema: &ParsedSchema) -> Vec<String> {
        let Some(found) = self.subjects.get(subject) else {
            return Vec::new();
        };
        let level = found.level.unwrap_or(self.level);
        let mut earlier: Vec<(u32, Version)> = found.visible(false).collect();
        if let Some(only) = only {
            earlier.retain(|(number, _)| *number == only);
        } else if !level.is_transitive() {
            earlier.drain(..earlier.len().saturating_sub(1));
        }
        let mut messages = Vec::new();
        for (number, version) in earlier {
            let Some(old) = self.schemas.get(&version.id) else {
                continue;
            };
            let found = level.check(&schema.avro, &old.avro);
            messages.extend(
                found
                    .into_iter()
                    .map(|what| format!("version {number}: {what}")),
            );
        }
        if !messages.is_empty() {
            messages.push(format!("the subject's compatibility level is {level}"));
        }
        messages
    }

    /// Makes `entry` true, or says how it contradicts what is known.
    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Journal { .. } => Ok(()),
            Entry::Register {
                subject,
                version,
                id,
                schema,
            } => self.apply_register(subject, *version, *id, schema),
            Entry::Delete {
                subject,
                versions,
                permanent,
            } => self.apply_delete(subject, versions, *permanent),
            Entry::Level { subject, level } => {
                let parsed = match level {
                    Some(name) => Some(
                        Level::parse(name)
                            .ok_or_else(|| format!("unknown compatibility level {name}"))?,
                    ),
                    None => None,
                };
                match subject {
                    Some(subject) => {
                        self.subjects.entry(subject.clone()).or_default().level = parsed;
                    }

                    None => self.level = parsed.unwrap_or_default(),
                }
                Ok(())
            }
        }
    }

    fn apply_register(
        &mut self,
        subject: &str,
        version: u32,
        id: u32,
        text: &str,
    ) -> Result<(), String> {
        let parsed = ParsedSchema::parse(text).map_err(|refusal| refusal.message)?;
        if let Some(other) = self.schemas.get(&id)
            && other.identity != parsed.identity
        {
            return Err(format!("schema id {id} is given twice"));
        }
        if self
            .ids
            .get(&parsed.identity)
            .is_some_and(|known| *known != id)
        {
            return Err(format!("the schema of id {id} has another id already"));
        }
        let versions = &mut self
            .subjects
            .entry(subject.to_owned())
            .or_default()
            .versions;
        if versions
            .last_key_value()
            .is_some_and(|(newest, _)| *newest >= version)
        {
            return Err(format!(
                "version {version} of subject '{subject}' is out of order"
            ));
        }
        versions.insert(version, Version { id, deleted: false });
        self.ids.insert(parsed.identity.clone(), id);
        self.schemas.entry(id).or_insert(parsed);
        self.last_id = self.last_id.max(id);
        Ok(())
    }

    fn apply_delete(
        &mut self,
        name: &str,
        versions: &[u32],
        permanent: bool,
    ) -> Result<(), String> {
        let subject = self
            .subjects
            .get_mut(name)
            .ok_or_else(|| format!("subject '{name}' is deleted but was never registered"))?;
        for number in versions {
            let known = match subject.versions.get_mut(number) {
                Some(version) => {
                    version.deleted = true;
                    !permanent || subject.versions.remove(number).is_some()
                }
                None => false,
            };
            if !known {
                return Err(format!(
                    "version {number} of subject '{name}' is deleted but was never registered"
                ));
            }
        }
        if subject.visible(false).next().is_none() {
            // As Confluent's registry does: a deleted subject that comes back starts with the global level.
            subject.level = None;
        }
        if subject.versions.is_empty() {
            self.subjects.remove(name);
        }
        if permanent {
            self.drop_unused_schemas();
        }
        Ok(())
    }

    fn drop_unused_schemas(&mut self) {
        let versions = self
            .subjects
            .values()
            .flat_map(|subject| subject.versions.values());
        let used: BTreeSet<u32> = versions.map(|version| version.id).collect();
        self.schemas.retain(|id, _| used.contains(id));
        self.ids.retain(|_, id| used.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[&str]) -> ParsedSchema {
        let fields: Vec<String> = fields
            .iter()
            .map(|name| format!(r#"{{"name":"{name}","type":"int"}}"#))
            .collect();
        let text = format!(
            r#"{{"type":"record","name":"R","fields":[{}]}}"#,
            fields.join(",")
        );
        ParsedSchema::parse(&text).unwrap()
    }

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn ids_belong_to_schemas_and_versions_to_subjects() {
        let (_dir, store) = open();
        assert_eq!(store.register("a", &schema(&["x"])), Ok(1));
        assert_eq!(store.register("a", &schema(&["x"])), Ok(1));
        assert_eq!(store.register("b", &schema(&["x"])), Ok(1));
        store.set_level(Some("a"), Some(Level::None)).unwrap();
        assert_eq!(store.register("a", &schema(&["y"])), Ok(2));
        assert_eq!(store.versions("a", false), Ok(vec![1, 2]));
        assert_eq!(
            store.uses(1, false),
            Ok(vec![("a".to_owned(), 1), ("b".to_owned(), 1)])
        );
        assert_eq!(
            store.lookup("a", &schema(&["y"]), false).unwrap().version,
            2
        );
        assert_eq!(
            store.lookup("b", &schema(&["y"]), false).unwrap_err().code,
            40403
        );
        assert_eq!(
            store.lookup("c", &schema(&["y"]), false).unwrap_err().code,
            40401
        );
    }

    #[test]
    fn only_the_transitive_levels_look_at_all_versions() {
        for (level, expected) in [
            (Level::Forward, Ok(3)),
            (Level::ForwardTransitive, Err(409)),
        ] {
            let (_dir, store) = open();
            store.set_level(None, Some(Level::None)).unwrap();
            store.register("a", &schema(&["x", "y"])).unwrap();
            store.register("a", &schema(&["x"])).unwrap();
            store.set_level(None, Some(level)).unwrap();
            let answer = store.register("a", &schema(&["x", "z"]));
            assert_eq!(answer.map_err(|refusal| refusal.code), expected, "{level}");
        }
    }

    #[test]
    fn everything_is_there_again_after_opening() {
        let (dir, store) = open();
        store.register("a", &schema(&["x"])).unwrap();
        store.set_level(None, Some(Level::Full)).unwrap();
        store.set_level(Some("a"), Some(Level::None)).unwrap();
        store.register("a", &schema(&["y"])).unwrap();
        store.register("gone", &schema(&["z"])).unwrap();
        store.delete_subject("gone", false).unwrap();
        store.delete_subject("gone", true).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.global_level(), Level::Full);
        assert_eq!(store.subject_level("a", false), Ok(Level::None));
        assert_eq!(store.versions("a", false), Ok(vec![1, 2]));
        assert_eq!(store.subjects("", true), ["a"]);
        assert_eq!(store.schema(3).unwrap_err().code, 40403);
        assert_eq!(
            store.register("new", &schema(&["w"])),
            Ok(4),
            "id 3 is not given again"
        );
    }

    #[test]
    fn deletion_is_soft_first_and_permanent_second() {
        let (_dir, store) = open();
        store.register("a", &schema(&["x"])).unwrap();
        let one = Selector::Number(1);
        assert_eq!(
            store.delete_version("a", one, true).unwrap_err().code,
            40407
        );
        assert_eq!(store.delete_version("a", one, false), Ok(1));
        assert_eq!(
            store.delete_version("a", one, false).unwrap_err().code,
            40406
        );
        assert_eq!(store.versions("a", false).unwrap_err().code, 40401);
        assert_eq!(store.versions("a", true), Ok(vec![1]));
        assert!(
            store.schema(1).is_ok(),
            "data that was written stays readable"
        );
        assert_eq!(store.register("a", &schema(&["x"])), Ok(1));
        assert_eq!(store.versions("a", false), Ok(vec![2]));
        assert_eq!(store.delete_subject("a", true).unwrap_err().code, 40405);
        assert_eq!(store.delete_subject("a", false), Ok(vec![2]));
        assert_eq!(store.delete_subject("a", false).unwrap_err().code, 40404);
        assert_eq!(store.delete_subject("a", true), Ok(vec![1, 2]));
        assert_eq!(store.schema(1).unwrap_err().code, 40403);
    }

    #[test]
    fn entries_that_contradict_each_other_are_damage() {
        let (dir, store) = open();
        store.register("a", &schema(&["x"])).unwrap();
        drop(store);
        let path = dir.path().join("registry.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let last = text.lines().next_back().unwrap();
        std::fs::write(&path, format!("{text}{last}\n")).unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("line 3") && error.contains("out of order"),
            "{error}"
        );
    }

    #[test]
    fn selectors_are_latest_or_positive() {
        assert_eq!(Selector::parse("latest"), Ok(Selector::Latest));
        assert_eq!(Selector::parse("-1"), Ok(Selector::Latest));
        assert_eq!(Selector::parse("7"), Ok(Selector::Number(7)));
        for text in ["0", "-2", "2147483648", "newest", ""] {
            assert_eq!(Selector::parse(text).unwrap_err().code, 42202, "{text}");
        }
    }
}
