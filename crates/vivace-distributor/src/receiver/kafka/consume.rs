//! Reads a topic as a member of a group, and stores what is in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use krafka::consumer::{Consumer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition};
use krafka::{CloseOptions, ConsumerRecord, KrafkaError};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vivace_config::KafkaReceiver;
use vivace_server::Tenancy;

use super::client;
use super::pause::Pauses;
use super::store::{Outcome, Store};
use crate::metrics as count;
use crate::push::Distributor;

/// How long the broker's answer is waited for before it is looked whether something else is to be done.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest pause before a broker that is away is asked again.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether a topic that does not exist has come.
const MISSING_TOPIC_PERIOD: Duration = Duration::from_secs(10);
/// Longest time for the last commit, and for the good-bye to the group: what a stopping process waits for is longer than both.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A receiver that reads a topic.
pub(crate) struct Consume {
    config: KafkaReceiver,
    store: Store,
}

impl Consume {
    pub(crate) fn new(config: &KafkaReceiver, distributor: Arc<Distributor>, tenancy: Tenancy) -> Self {
        Self { config: config.clone(), store: Store::new(config, distributor, tenancy) }
    }

    /// Reads until `stop`; then what was taken is stored or left for others, and the group is told.
    ///
    /// # Errors
    /// What is configured cannot work, such as a certificate that is none. Brokers that are away are waited for.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { config, store } = self;
        let (id, consumer) = (config.id.as_str(), &config.consumer);
        count::kafka_begins(id);
        let mut pauses = Pauses::new(consumer.metadata.retry.backoff, CONNECT_PAUSE_MAX, 2.0, 0.2);
        loop {
            let joined = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                joined = join(&config) => joined,
            };
            let error = match joined {
                Ok((consumer, lost)) => {
                    pauses.reset();
                    let mut member = Member {
                        config: &config,
                        store: &store,
                        consumer,
                        lost,
                        committed_at: Instant::now(),
                        committed: BTreeMap::new(),
                        commit_fails: false,
                        partitions: None,
                        looked_at: Instant::now(),
                    };
                    match member.read(&stop).await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error @ KrafkaError::Config { .. }) => {
                    return Err(anyhow::Error::new(error).context(format!("distributor.receivers.{id}")));
                }
                Err(error) => error,
            };
            let pause = pauses.next();
            tracing::warn!(
                receiver = id, brokers = ?consumer.brokers, topic = consumer.topic(), %error, ?pause,
                "cannot read from Kafka, and tries again"
            );
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// A member of the group that reads nothing yet.
async fn join(config: &KafkaReceiver) -> Result<(Consumer, Lost), KrafkaError> {
    let kafka = client::connect(&config.consumer).await?;
    let lost = Lost { id: config.id.clone(), partitions: Arc::default() };
    let consumer = client::consumer(&kafka, &config.consumer, lost.clone()).await?;
    consumer.subscribe([config.consumer.topic()]).await?;
    tracing::info!(receiver = config.id, topic = config.consumer.topic(), group = config.consumer.group_id, "reads spans from Kafka");
    Ok((consumer, lost))
}

/// Partitions that are no longer this member's since it was last looked.
#[derive(Debug, Clone)]
struct Lost {
    id: String,
    partitions: Arc<Mutex<Vec<i32>>>,
}

impl Lost {
    fn take(&self) -> Vec<i32> {
        std::mem::take(&mut self.partitions.lock())
    }

    fn add(&self, partitions: &[TopicPartition]) {
        let numbers: Vec<i32> = partitions.iter().map(|partition| partition.partition).collect();
        tracing::info!(receiver = self.id, partitions = ?numbers, "leaves partitions to the group");
        self.partitions.lock().extend(numbers);
    }
}

impl ConsumerRebalanceListener for Lost {
    async fn on_partitions_assigned(&self, partitions: &[TopicPartition]) {
        let numbers: Vec<i32> = partitions.iter().map(|partition| partition.partition).collect();
        tracing::info!(receiver = self.id, partitions = ?numbers, "has partitions of its own");
    }

    async fn on_partitions_revoked(&self, partitions: &[TopicPartition]) {
        self.add(partitions);
    }

    async fn on_partitions_lost(&self, partitions: &[TopicPartition]) {
        self.add(partitions);
    }
}

/// A member of the group.
struct Member<'c> {
    config: &'c KafkaReceiver,
    store: &'c Store,
    consumer: Consumer,
    lost: Lost,
    committed_at: Instant,
    /// The next offset of each partition, as it was committed last.
    committed: BTreeMap<i32, i64>,
    /// Whether the last commit failed.
    commit_fails: bool,
    /// Partitions of the topic when it was last looked. None: it was not yet.
    partitions: Option<usize>,
    looked_at: Instant,
}

impl Member<'_> {
    /// Reads until `stop`, and leaves the group.
    ///
    /// # Errors
    /// The client is of no use any more, and another one has to be made.
    async fn read(&mut self, stop: &CancellationToken) -> Result<(), KrafkaError> {
        let (left, ended) = self.read_on(stop).await;
        if tokio::time::timeout(CLOSE_TIMEOUT, self.commit(&left)).await.is_err() {
            tracing::warn!(receiver = self.config.id, "the last offsets could not be committed in time; messages may come twice");
        }
        if let Err(error) = self.consumer.close_with(CloseOptions::new().timeout(CLOSE_TIMEOUT)).await {
            tracing::warn!(receiver = self.config.id, %error, "the group was not told that this member leaves; it will see for itself");
        }
        count::kafka_position(&self.config.id, 0, 0);
        ended
    }

    /// What was taken and is not stored when it ends, and why it ends.
    async fn read_on(&mut self, stop: &CancellationToken) -> (Vec<ConsumerRecord>, Result<(), KrafkaError>) {
        let mut pauses = Pauses::new(self.config.consumer.metadata.retry.backoff, CONNECT_PAUSE_MAX, 2.0, 0.2);
        loop {
            let polled = tokio::select! {
                biased;
                () = stop.cancelled() => return (Vec::new(), Ok(())),
                polled = self.poll() => polled,
            };
            match polled {
                Ok(messages) => {
                    pauses.reset();
                    self.lost.take();
                    let left = self.store(messages, stop).await;
                    if !left.is_empty() {
                        return (left, Ok(()));
                    }
                    self.count_position().await;
                    self.commit_when_due().await;
                }
                Err(error) if error.is_fatal() => return (Vec::new(), Err(error)),
                Err(error) => {
                    let pause = pauses.next();
                    tracing::warn!(receiver = self.config.id, %error, ?pause, "cannot read from Kafka now, and tries again");
                    wait(pause, stop).await;
                }
            }
        }
    }

    /// The next messages, perhaps none.
    async fn poll(&mut self) -> Result<Vec<ConsumerRecord>, KrafkaError> {
        self.look_at_topic().await?;
        self.consumer.poll(POLL_TIMEOUT).await
    }

    /// Joins the group anew when the topic has come, or has got partitions: the client's groups do not see that.
    async fn look_at_topic(&mut self) -> Result<(), KrafkaError> {
        let refresh = self.config.consumer.metadata.refresh_interval;
        let period = if self.partitions == Some(0) { refresh.min(MISSING_TOPIC_PERIOD) } else { refresh };
        if self.partitions.is_some() && (period.is_zero() || self.looked_at.elapsed() < period) {
            return Ok(());
        }
        let topic = self.config.consumer.topic();
        let found = self.consumer.fetch_metadata(Some(topic)).await?;
        let partitions = found.topics.first().map_or(0, |topic| topic.partitions.len());
        if self.partitions.is_none() && partitions == 0 {
            tracing::warn!(receiver = self.config.id, topic, "the topic does not exist yet");
        }
        if self.partitions.is_some_and(|before| before != partitions) {
            tracing::info!(receiver = self.config.id, topic, partitions, "the topic has other partitions than before");
            self.commit(&[]).await;
            self.consumer.unsubscribe().await?;
            self.consumer.subscribe([topic]).await?;
        }
        // Not before all of it went well: what failed is tried again.
        (self.partitions, self.looked_at) = (Some(partitions), Instant::now());
        Ok(())
    }

    /// Stores messages, however long it takes. What is returned is not stored: the process stops.
    async fn store(&mut self, messages: Vec<ConsumerRecord>, stop: &CancellationToken) -> Vec<ConsumerRecord> {
        let mut left = messages;
        let mut pauses = Pauses::of(&self.config.consumer.error_backoff);
        let mut refused_before = false;
        loop {
            let Outcome { refused, error } = self.store.all(left, stop).await;
            left = refused;
            if left.is_empty() {
                if refused_before {
                    tracing::info!(receiver = self.config.id, "what was refused before is stored");
                }
                return left;
            }
            if stop.is_cancelled() {
                return left;
            }
            if !refused_before {
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                tracing::warn!(receiver = self.config.id, messages = left.len(), error, "messages are refused for now, and tried again");
            }
            refused_before = true;
            self.commit(&left).await;
            self.stay(pauses.next(), &mut left, stop).await;
            if stop.is_cancelled() {
                return left;
            }
        }
    }

    /// Stays in the group for a while without reading on. Messages of partitions that others get meanwhile are theirs.
    async fn stay(&mut self, pause: Duration, left: &mut Vec<ConsumerRecord>, stop: &CancellationToken) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !left.is_empty() && !stop.is_cancelled() {
            for (topic, partitions) in self.consumer.assignment().await {
                self.consumer.pause(&topic, &partitions).await;
            }
            let polled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                polled = self.consumer.poll(until.saturating_duration_since(Instant::now())) => polled,
            };
            match polled {
                Ok(of_new_partitions) => {
                    let lost = self.lost.take();
                    left.retain(|message| !lost.contains(&message.partition));
                    left.extend(of_new_partitions);
                }
                Err(error) => {
                    tracing::debug!(receiver = self.config.id, %error, "cannot stay in the group now");
                    wait(until.saturating_duration_since(Instant::now()), stop).await;
                }
            }
        }
        for (topic, partitions) in self.consumer.assignment().await {
            self.consumer.resume(&topic, &partitions).await;
        }
    }

    async fn commit_when_due(&mut self) {
        let autocommit = &self.config.consumer.autocommit;
        if !autocommit.enable || self.committed_at.elapsed() >= autocommit.interval {
            self.commit(&[]).await;
        }
    }

    /// Commits what is stored: each partition up to the first message that is left of it.
    async fn commit(&mut self, left: &[ConsumerRecord]) {
        let topic = self.config.consumer.topic();
        let mut offsets = BTreeMap::new();
        for partition in self.consumer.assignment().await.remove(topic).unwrap_or_default() {
            let first_left = left.iter().filter(|message| message.partition == partition).map(|message| message.offset).min();
            let next = match first_left {
                Some(offset) => Some(offset),
                None => self.consumer.position(topic, partition).await,
            };
            offsets.extend(next.map(|next| (partition, next)));
        }
        self.committed_at = Instant::now();
        if offsets.is_empty() || self.committed == offsets {
            return;
        }
        let asked = offsets.iter().map(|(partition, next)| (TopicPartition::new(topic, *partition), OffsetAndMetadata::new(*next)));
        match self.consumer.commit_offsets(asked).await {
            Ok(()) => {
                self.committed = offsets;
                if std::mem::take(&mut self.commit_fails) {
                    tracing::info!(receiver = self.config.id, "offsets are committed again");
                }
            }
            // The next commit makes up for it; until then messages may come twice.
            Err(error) if self.commit_fails => tracing::debug!(receiver = self.config.id, %error, "offsets cannot be committed"),
            Err(error) => {
                self.commit_fails = true;
                tracing::warn!(receiver = self.config.id, %error, "offsets cannot be committed now; messages may come twice");
            }
        }
    }

    async fn count_position(&self) {
        let lag = self.consumer.lag().await;
        count::kafka_position(&self.config.id, lag.len() as u64, lag.values().filter_map(|partition| partition.lag).sum());
    }
}

async fn wait(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
