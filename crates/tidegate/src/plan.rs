//! What a load means: input opened, schema chosen, records planned, topic and registry looked at. Nothing is changed before all of it is right.
//!
//! [`Load::prepare`] only looks; [`Load::commit`] then registers the schema and creates the topic, which is the last that can fail before
//! records are sent.

use tidegate::bridge::{Job, other_partitions, prepare_positions_topic};
use tidegate::core::encode::SchemaIds;
use tidegate::core::job::{Delivery, JobIdentity, JobPosition};
use tidegate::core::key::KeyReason;
use tidegate::core::partition::Partitioner;
use tidegate::core::publish::CommitCadence;
use tidegate::core::schema::RecordPlan;
use tidegate::kafka::Operation;

use crate::args::{OnBadRow, PublishArgs};
use crate::failure::{Failure, Kind};
use crate::groups;
use crate::inputs::Inputs;
use crate::job::{self, LoadJob};
use crate::options::{ResolvedOptions, Typed};
use crate::report::grouped;
use crate::rights::{self, Need};
use crate::service::{Context, Reach, Service, needs_registry};
use crate::subject_schema::{Origin, Schemas};
use crate::timestamps;
use crate::topic::{self, TopicState, TopicWish};

/// A load, ready to be run.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    args: &'a PublishArgs,
    /// Where the rows come from.
    pub(crate) inputs: Inputs,
    /// How rows become records.
    pub(crate) records: RecordPlan,
    /// The cluster.
    pub(crate) service: Service,
    /// Which job it is; `None` for a load that cannot be gone on with.
    pub(crate) job: Option<LoadJob>,
    schemas: Schemas,
    topic: TopicState,
    /// The topic for rejected rows, where there is to be one.
    rejects_topic: Option<TopicState>,
}

impl<'a> Load<'a> {
    /// Opens, resolves and checks everything, and changes nothing.
    pub(crate) fn prepare(args: &'a PublishArgs, context: &mut Context) -> Result<Self, Failure> {
        check_flags(args)?;
        if args.records.needs_registry() && !context.has_registry(&args.cluster, &args.registry)? {
            return Err(needs_registry());
        }
        let inputs = Inputs::prepare(&args.files, &args.csv, &context.interrupt)?;
        if args.proof.verify && !inputs.is_file() {
            let message = format!(
                "--verify reads the input a second time, and {} can be read only once",
                inputs.name()
            );
            return Err(Failure::new(Kind::Usage, message).hint("put it into a file first"));
        }
        let reach = Reach {
            cluster: &args.cluster,
            registry: Some(&args.registry),
            delivery_timeout: Some(args.delivery.delivery_timeout),
        };
        let service = context.connect(reach)?;
        let job = LoadJob::find(args, &inputs, &service.client)?;
        let found = job.as_ref().and_then(|job| job.found.as_ref());
        let (inputs, records, schemas) = match found {
            Some(found) => resumed(args, found, &service, context)?,
            None => begun(args, inputs, &service)?,
        };
        let mut load = Self {
            args,
            inputs,
            records,
            service,
            job,
            schemas,
            topic: TopicState::Exists(1),
            rejects_topic: None,
        };
        load.topic = topic::inspect(&load.service.client, &load.wish())?;
        load.check_topic()?;
        load.check_records()?;
        load.rejects_topic = load.look_at_rejects_topic()?;
        if let Some(job) = &load.job {
            job.refuse_other_list(args, &load.inputs, load.topic_id().as_deref())?;
        }
        rights::require(&load.service.client, &load.needs())?;
        let gate = &args.consumers;
        for group in [&gate.hold_group, &gate.wait_group].into_iter().flatten() {
            groups::require_consumers(&load.service.client, group)?;
        }
        let registry = load.service.registry.as_ref();
        load.schemas.check_compatible(&load.records, registry)?;
        load.inputs.check(context)?;
        Ok(load)
    }

    /// The rights that the load cannot do without. Whether topics may be created is asked when they are.
    fn needs(&self) -> Vec<Need<'_>> {
        let consumers = &self.args.consumers;
        let mut needs = Vec::new();
        if matches!(self.topic, TopicState::Exists(_)) {
            let topic = &self.args.topic;
            needs.push(Need::topic(topic, Operation::Write, "publishing needs"));
            if self.args.proof.verify {
                needs.push(Need::topic(topic, Operation::Read, "--verify needs"));
            }
        }
        if let (Some(topic), Some(TopicState::Exists(_))) =
            (&self.args.rejects.rejects_topic, &self.rejects_topic)
        {
            needs.push(Need::topic(
                topic,
                Operation::Write,
                "--rejects-topic needs",
            ));
        }
        // At least once a load does without positions where it may not write them.
        if let Some(job) = &self.job
            && job.delivery == Delivery::ExactlyOnce
        {
            needs.push(Need::transactional_id(&job.id));
            let positions = self.positions_topic();
            for operation in [Operation::Read, Operation::Write] {
                needs.push(Need::topic(
                    positions,
                    operation,
                    "loading exactly once needs",
                ));
            }
        }
        let hold = consumers.hold_group.as_deref();
        needs.extend(hold.map(|group| Need::group(group, "--hold-group needs")));
        let wait = consumers.wait_group.as_deref();
        needs.extend(wait.map(|group| Need::group(group, "--wait-group needs")));
        needs
    }

    /// Where the job stands that is gone on with.
    pub(crate) fn found(&self) -> Option<&JobPosition> {
        self.job.as_ref()?.found.as_ref()
    }

    /// The job, if all of the input is in the topic already.
    pub(crate) fn published(&self) -> Result<Option<&JobPosition>, Failure> {
        match &self.job {
            Some(job) if job.is_published(&self.inputs)? => Ok(job.found.as_ref()),
            _ => Ok(None),
        }
    }

    /// Where rejected rows are written.
    pub(crate) fn rejects_file(&self) -> Option<String> {
        let rejects = self.args.rejects.rejects.as_deref();
        rejects.map(job::absolute)
    }

    /// The topic that rejected rows go to.
    pub(crate) fn rejects_topic(&self) -> Option<String> {
        self.args.rejects.rejects_topic.clone()
    }

    /// What the plan of the records asks of inputs and topic.
    fn check_records(&self) -> Result<(), Failure> {
        if let Partitioner::Only(partition) = self.records.partitioner()
            && partition >= self.expected_partitions()
            && self.topic != TopicState::ToCreate(None)
        {
            let (name, count) = (&self.args.topic, self.expected_partitions());
            let message = format!(
                "--partition {partition}: topic {name} has {count} partitions, counted from 0"
            );
            return Err(Failure::new(Kind::Usage, message));
        }
        if !self.records.marks_last() {
            return Ok(());
        }
        if !self.inputs.is_file() {
            let name = self.inputs.name();
            let message = format!(
                "--mark-last reads the input once more to find its last record, and {name} can be read only once"
            );
            return Err(Failure::new(Kind::Usage, message).hint("put it into a file first"));
        }
        if self.hold_last() {
            let message = "--hold-last leaves the end of a file that grows for later, and --mark-last marks where it ends";
            return Err(Failure::new(Kind::Usage, message).hint("leave one of them out"));
        }
        Ok(())
    }

    /// Looks at the topic for rejected rows without changing anything.
    fn look_at_rejects_topic(&self) -> Result<Option<TopicState>, Failure> {
        let Some(wish) = self.rejects_wish() else {
            return Ok(None);
        };
        if wish.name == self.args.topic || wish.name == self.positions_topic() {
            let message = format!("--rejects-topic {} holds something else already", wish.name);
            return Err(Failure::new(Kind::Usage, message).hint("name another topic"));
        }
        let client = &self.service.client;
        let state = topic::inspect(client, &wish)?;
        if matches!(state, TopicState::Exists(_)) {
            topic::refuse_compacted(client, wish.name)?;
        }
        Ok(Some(state))
    }

    fn rejects_wish(&self) -> Option<TopicWish<'_>> {
        Some(TopicWish {
            name: self.args.rejects.rejects_topic.as_deref()?,
            partitions: None,
            ..self.wish()
        })
    }

    /// What is promised.
    pub(crate) fn delivery(&self) -> Delivery {
        let job = self.job.as_ref();
        job.map_or(Delivery::AtLeastOnce, |job| job.delivery)
    }

    /// The topic of a job that is gone on with must be the one it began with.
    fn check_topic(&self) -> Result<(), Failure> {
        let Some(found) = self.found() else {
            return Ok(());
        };
        let name = &self.args.topic;
        let TopicState::Exists(count) = self.topic else {
            let message = format!("topic {name} was deleted since the load began");
            return Err(
                Failure::new(Kind::Topic, message).hint("--restart publishes every row again")
            );
        };
        let (then, now) = (&found.identity.topic_id, self.topic_id());
        if let (Some(then), Some(now)) = (then, &now)
            && then != now
        {
            let message =
                format!("topic {name} was deleted and created again since the load began");
            return Err(
                Failure::new(Kind::Topic, message).hint("--restart publishes every row again")
            );
        }
        let then = i32::try_from(found.load.partitions.len()).unwrap_or(i32::MAX);
        if then > 0 && then != count {
            let message = other_partitions(name, then, count);
            return Err(Failure::new(Kind::Topic, message).hint(
                "publish to another topic; --restart publishes every row again to this one",
            ));
        }
        Ok(())
    }

    /// What people should know before the load, though nothing is wrong with it.
    pub(crate) fn warnings(&self) -> Result<Vec<String>, Failure> {
        let mut warnings = self.records.warnings().to_vec();
        if let Some(job) = &self.job {
            let topic_id = self.topic_id();
            warnings.extend(job.warning(&self.inputs, &self.args.topic, topic_id.as_deref()));
            if job.positions_missing
                && matches!(self.topic, TopicState::Exists(_))
                && topic::has_records(&self.service.client, &self.args.topic)?
            {
                warnings.push(format!(
                    "topic {} holds records, and there is no topic {} that would say whether rows of this file are among them",
                    self.args.topic,
                    self.positions_topic()
                ));
            }
        }
        if !self.service.embedded && matches!(self.topic, TopicState::Exists(_)) {
            warnings.extend(topic::durability_warning(
                &self.service.client,
                &self.args.topic,
            ));
        }
        if matches!(self.topic, TopicState::Exists(_)) {
            warnings.extend(timestamps::warnings(
                &self.service.client,
                &self.args.topic,
                &self.inputs,
                &self.records,
            )?);
        }
        Ok(warnings)
    }

    /// Registers the schemas and creates the topics, as far as that is needed; returns the schemas' ids.
    pub(crate) fn commit(&self) -> Result<SchemaIds, Failure> {
        if self.job.is_some() {
            prepare_positions_topic(&self.service.client, self.positions_topic())?;
        }
        let registry = self.service.registry.as_ref();
        let ids = self.schemas.register(&self.records, registry)?;
        topic::prepare(&self.service.client, &self.wish(), &self.topic)?;
        if let (Some(wish), Some(state)) = (self.rejects_wish(), &self.rejects_topic) {
            topic::prepare(&self.service.client, &wish, state)?;
        }
        Ok(ids)
    }

    /// Whether what may still go on at the input's end is left for later.
    pub(crate) fn hold_last(&self) -> bool {
        self.args.delivery.hold_last
    }

    /// Whether the input suggested the schema and has no row to send: then nothing is registered or created for it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.schemas.value.origin, Origin::Inferred { rows: 0, .. })
    }

    /// How many partitions there are or will be, as far as that is known before the topic is created.
    pub(crate) fn expected_partitions(&self) -> i32 {
        match self.topic {
            TopicState::Exists(count) | TopicState::ToCreate(Some(count)) => count,
            TopicState::ToCreate(None) => 1,
        }
    }

    /// What this run and a later one must have in common.
    pub(crate) fn identity(&self, schema_ids: SchemaIds) -> Result<JobIdentity, Failure> {
        if let Some(found) = self.found() {
            return Ok(found.identity.clone());
        }
        let id = match &self.job {
            Some(job) => job.id.clone(),
            None => self.inputs.default_job(&self.args.topic),
        };
        Ok(JobIdentity {
            job: id,
            delivery: self.delivery(),
            topic: self.args.topic.clone(),
            topic_id: self.topic_id(),
            schema_id: schema_ids.value,
            key_schema_id: schema_ids.key,
            plan: ResolvedOptions::of(&self.inputs, &self.records, &self.args.records).to_json()?,
        })
    }

    /// What its job is taken over with.
    pub(crate) fn run_of(&self, identity: JobIdentity) -> Job {
        let delivery = &self.args.delivery;
        Job {
            identity,
            sources: self.sources(),
            rejects_file: self.rejects_file(),
            rejects_topic: self.rejects_topic(),
            positions_topic: self.positions_topic().to_owned(),
            transaction_timeout: delivery.transaction_timeout,
            restart: delivery.restart,
        }
    }

    /// The inputs, in order.
    pub(crate) fn sources(&self) -> Vec<String> {
        self.inputs.identities()
    }

    fn positions_topic(&self) -> &str {
        &self.args.delivery.job.positions.positions_topic
    }

    fn topic_id(&self) -> Option<String> {
        topic::id(&self.service.client, &self.args.topic)
    }

    /// Whether and where a later run would go on, and what is promised.
    fn describe_delivery(&self) -> String {
        let delivery = self.delivery();
        let Some(job) = &self.job else {
            let why = if self.inputs.is_file() {
                let positions = self.positions_topic();
                format!("there is no topic {positions} that may be read")
            } else {
                "a stream".to_owned()
            };
            return format!("{delivery}, idempotent, cannot be gone on with ({why})");
        };
        let id = &job.id;
        match job.found.as_ref().map(|found| found.load.input.row) {
            Some(row) if row > 0 => {
                format!("{delivery}, job {id}, goes on after row {}", grouped(row))
            }
            _ => format!("{delivery}, job {id}"),
        }
    }

    /// The plan in one line.
    pub(crate) fn describe(&self) -> String {
        let unit = match self.records.group_columns().as_slice() {
            [] => "one record a row".to_owned(),
            columns => format!("one record per {}", columns.join(", ")),
        };
        let key = match (
            self.records.key_columns().as_slice(),
            self.records.key_reason(),
        ) {
            ([], reason @ (KeyReason::AskedForNone | KeyReason::NothingFits)) => {
                format!("no key ({reason})")
            }
            ([], _) => "no key".to_owned(),
            (columns, reason) => {
                let schema = self.schemas.describe_key();
                let schema = schema.map_or_else(String::new, |from| format!(", schema {from}"));
                format!("key {} ({reason}{schema})", columns.join(", "))
            }
        };
        format!(
            "plan: {} ({}) -> topic {} ({}); {}, {unit}, schema {}; {key}; {}, {}",
            self.inputs.name(),
            self.inputs.describe(),
            self.args.topic,
            self.topic.describe(),
            self.records.format(),
            self.schemas.value.describe(),
            self.describe_delivery(),
            crate::commands::compression(self.args.delivery.compression),
        )
    }

    fn wish(&self) -> TopicWish<'_> {
        TopicWish {
            name: &self.args.topic,
            partitions: self.args.delivery.partitions,
            replication_factor: self.args.delivery.replication_factor,
            may_create: self.args.delivery.create_topic || self.service.embedded,
            default_partitions: self.service.embedded.then_some(1),
        }
    }
}

/// A load that begins: its plan comes from what was typed, the registry and the data.
fn begun(
    args: &PublishArgs,
    inputs: Inputs,
    service: &Service,
) -> Result<(Inputs, RecordPlan, Schemas), Failure> {
    let registry = service.registry.as_ref();
    let (schemas, records) =
        Schemas::choose(&args.schema, &args.records, &args.topic, registry, &inputs)?;
    Ok((inputs, records, schemas))
}

/// A load that is gone on with: its plan is the one it began with, whatever the registry or the data would suggest now.
fn resumed(
    args: &PublishArgs,
    found: &JobPosition,
    service: &Service,
    context: &Context,
) -> Result<(Inputs, RecordPlan, Schemas), Failure> {
    let job = &found.identity.job;
    let options = ResolvedOptions::parse(&found.identity.plan, &format!("the job {job}"))?;
    let typed = Typed {
        schema: &args.schema,
        records: &args.records,
        csv: &args.csv,
    };
    let registry = service.registry.as_ref();
    let refused = options.refuse_others(&typed, found.identity.schema_id, registry);
    refused.map_err(|failure| {
        failure
            .hint("leave it out to go on as the load was begun")
            .hint("--restart publishes every row again; --job NAME makes it another load")
    })?;
    let (inputs, records) = options.open(&args.files, &context.interrupt)?;
    let schemas = Schemas::of_job(options.schema, options.key_schema, &found.identity);
    Ok((inputs, records, schemas))
}

/// When the load commits: as typed, else less often where commits take long, but always well within the transaction's time.
pub(crate) fn commit_cadence(args: &PublishArgs) -> CommitCadence {
    let usual = CommitCadence::default();
    match args.delivery.commit_interval {
        Some(interval) => CommitCadence {
            interval,
            longest_interval: interval,
            ..usual
        },
        None => {
            let most = args.delivery.transaction_timeout / 3;
            CommitCadence {
                interval: usual.interval.min(most),
                longest_interval: usual.longest_interval.min(most),
                ..usual
            }
        }
    }
}

/// Flags that do not fit together in ways that the parser cannot know.
fn check_flags(args: &PublishArgs) -> Result<(), Failure> {
    if args.rejects.max_rejects.is_some() && !args.rejects.has_place() {
        let message =
            "--max-rejects is about rows that are kept apart, and they have no place to go";
        let failure = Failure::new(Kind::Usage, message);
        return Err(failure.hint("--rejects FILE or --rejects-topic TOPIC names one"));
    }
    if args.rejects.on_bad_row == Some(OnBadRow::Skip) && !args.rejects.has_place() {
        let failure = Failure::new(
            Kind::Usage,
            "--on-bad-row skip needs a place for the bad rows",
        );
        return Err(failure.hint("--rejects FILE or --rejects-topic TOPIC names one"));
    }
    if args.rejects.on_bad_row == Some(OnBadRow::Stop) && args.rejects.has_place() {
        let failure = Failure::new(
            Kind::Usage,
            "--rejects and --rejects-topic take bad rows, and --on-bad-row stop says that there are none to take",
        );
        return Err(failure.hint("leave one of them out"));
    }
    let cadence = commit_cadence(args);
    if cadence.interval >= args.delivery.transaction_timeout {
        return Err(Failure::new(
            Kind::Usage,
            "--commit-interval must be shorter than --transaction-timeout: a transaction would never be committed in time",
        ));
    }
    Ok(())
}
