//! The series of one tenant: counters, gauges and histograms by their labels, limited in number. How they are sent is in `collection`.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::num::NonZeroU64;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::cardinality::Cardinality;
use crate::demand::Demand;
use crate::histogram::{Histogram, HistogramShape, Observation};
use crate::labels::{LabelSet, labels_of};

/// What is made of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    Calls,
    Latency,
    Size,
    TargetInfo,
    HostInfo,
    Requests,
    FailedRequests,
    ServerSeconds,
    ClientSeconds,
    MessagingSeconds,
}

/// A set of labels that has series. Valid until the next collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntityId(u32);

/// All series that have the same labels.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) key: Box<[u8]>,
    hash: u64,
    pub(crate) series: Vec<Series>,
    pub(crate) updated_unix_nanos: u64,
    /// Collections that had begun before.
    pub(crate) born: u64,
    /// Stands for those that are over the limit; is not counted.
    is_overflow: bool,
    /// The collections that had begun when it became doubtful whether anything comes for it yet; none if something came since.
    pub(crate) doubted: Option<NonZeroU64>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) metric: Metric,
    pub(crate) value: Value,
    /// Has been collected, so that its zero has been sent.
    pub(crate) sent: bool,
}

#[derive(Debug)]
pub(crate) enum Value {
    Counter(f64),
    Gauge(f64),
    Histogram(Box<Histogram>),
}

/// A series that was sent and is no more.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) key: Box<[u8]>,
    pub(crate) metric: Metric,
    /// Of [`Metric::HostInfo`], the name it had then.
    pub(crate) host_info_name: String,
    pub(crate) form: Form,
}

/// What a series is to the receiver.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    Plain,
    Classic(Arc<[f64]>),
    Native,
}

/// How many there may be; 0 is any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RegistryLimits {
    pub(crate) series_max: usize,
    pub(crate) entities_max: usize,
    /// Values of one label.
    pub(crate) values_max: usize,
}

/// What happened since it was asked last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) series_added: u64,
    pub(crate) series_removed: u64,
    /// Additions that went to an overflow series.
    pub(crate) series_limited: u64,
    pub(crate) entities_added: u64,
    pub(crate) entities_removed: u64,
    pub(crate) entities_limited: u64,
    /// Labels whose value was replaced.
    pub(crate) values_limited: u64,
}

/// The series of one tenant.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) entities: Vec<Option<Entity>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
    overflow_key: Box<[u8]>,
    limits: RegistryLimits,
    cardinality: Cardinality,
    /// Sets of labels that were refused, and single series of others.
    refused: Demand,
    refused_series: Demand,
    /// Of the single series that were refused, how often one was, and what all of them would have counted.
    refused_costs: (f64, f64),
    active_series: usize,
    active_entities: usize,
    changes: Changes,
    pub(crate) ended: Vec<Ended>,
    /// The name of [`Metric::HostInfo`].
    pub(crate) host_info_name: String,
    /// Labels of every series.
    pub(crate) constant_labels: Vec<(String, String)>,
    /// Collections that have begun, and when the last one did, in milliseconds since the epoch.
    pub(crate) collections: u64,
    pub(crate) collected_unix_millis: i64,
    /// Up to here an earlier series of the same name may have samples. Unix milliseconds.
    pub(crate) floor_unix_millis: i64,
}

impl Registry {
    /// Each series has the constant labels; of equal names the last counts.
    pub(crate) fn new(limits: RegistryLimits, constant_labels: Vec<(String, String)>) -> Self {
        // To Prometheus an empty label is none, and receivers may refuse it.
        let constant_labels: BTreeMap<_, _> = constant_labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut overflow = LabelSet::new(usize::MAX, usize::MAX, Vec::new());
        overflow.push("metric_overflow", "true");
        Self {
            entities: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            overflow_key: overflow.key().into(),
            limits,
            cardinality: Cardinality::default(),
            refused: Demand::default(),
            refused_series: Demand::default(),
            refused_costs: (0.0, 0.0),
            active_series: 0,
            active_entities: 0,
            changes: Changes::default(),
            ended: Vec::new(),
            host_info_name: String::new(),
            constant_labels: constant_labels.into_iter().collect(),
            collections: 0,
            collected_unix_millis: 0,
            floor_unix_millis: 0,
        }
    }

    /// Changes the limits; series that exist stay.
    pub(crate) fn set_limits(&mut self, limits: RegistryLimits) {
        self.limits = limits;
        self.cardinality.set_max(limits.values_max);
    }

    /// Forgets what was not seen for a while, of all but series.
    pub(crate) fn forget(&mut self, now_unix_nanos: u64, stale_before_unix_nanos: u64) {
        self.cardinality.expire(stale_before_unix_nanos);
        let window_nanos = now_unix_nanos.saturating_sub(stale_before_unix_nanos);
        self.refused.turn(now_unix_nanos, window_nanos);
        self.refused_series.turn(now_unix_nanos, window_nanos);
    }

    /// Series that exist, as the limit counts them.
    pub(crate) fn active_series(&self) -> usize {
        self.active_series
    }

    /// Sets of labels that have series.
    pub(crate) fn active_entities(&self) -> usize {
        self.active_entities
    }

    /// Sets of labels that there would be without a limit, about.
    pub(crate) fn entity_demand(&self) -> f64 {
        self.active_entities as f64 + self.refused.estimate()
    }

    /// Series that there would be without a limit, about: a set of labels that was refused counts as much as others do.
    pub(crate) fn series_demand(&self) -> f64 {
        let mean = |(count, sum): (f64, f64)| if count > 0.0 { (sum / count).max(1.0) } else { 1.0 };
        let single = self.refused_series.estimate() * mean(self.refused_costs);
        let admitted = self.active_series as f64 + single;
        admitted + self.refused.estimate() * mean((self.active_entities as f64, admitted))
    }

    /// Gives back the room of what has ended, if it is most of it. Ids of before are not valid any more.
    pub(crate) fn compact(&mut self) {
        if self.free.len() < 1024 || self.free.len() < self.entities.len() / 4 * 3 {
            return;
        }
        self.entities.retain(Option::is_some);
        self.entities.shrink_to_fit();
        (self.free, self.by_key) = (Vec::new(), HashTable::with_capacity(self.entities.len()));
        let entities = &self.entities;
        let hash = |id: &u32| entities[*id as usize].as_ref().map_or(0, |entity| entity.hash);
        for id in 0..entities.len() as u32 {
            self.by_key.insert_unique(hash(&id), id, hash);
        }
    }

    /// What happened since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The series with these labels, or those that stand for all that are over the limit. `cost` is that of the series added next.
    pub(crate) fn entity(&mut self, labels: &mut LabelSet, cost: usize, now_unix_nanos: u64) -> EntityId {
        self.changes.values_limited += self.cardinality.limit(labels, now_unix_nanos);
        let key = labels.key();
        let hash = self.hasher.hash_one(key);
        if let Some(id) = self.find(hash, key) {
            if let Some(entity) = &mut self.entities[id.0 as usize] {
                entity.updated_unix_nanos = now_unix_nanos;
                entity.doubted = None;
            }
            return id;
        }
        if !self.has_room(cost) {
            self.changes.series_limited += 1;
            self.refused.insert(hash);
            return self.overflow(now_unix_nanos);
        }
        if self.limits.entities_max > 0 && self.active_entities >= self.limits.entities_max {
            self.changes.entities_limited += 1;
            self.refused.insert(hash);
            return self.overflow(now_unix_nanos);
        }
        self.active_entities += 1;
        self.changes.entities_added += 1;
        self.insert(key.into(), hash, false, now_unix_nanos)
    }

    /// Adds to a counter.
    pub(crate) fn add(&mut self, entity: EntityId, metric: Metric, amount: f64) {
        if let Value::Counter(value) = &mut self.series(entity, metric, 1, || Value::Counter(0.0)).value {
            *value += amount;
        }
    }

    /// Sets a gauge.
    pub(crate) fn set(&mut self, entity: EntityId, metric: Metric, to: f64) {
        if let Value::Gauge(value) = &mut self.series(entity, metric, 1, || Value::Gauge(0.0)).value {
            *value = to;
        }
    }

    /// Adds an observation to a histogram.
    pub(crate) fn observe(&mut self, entity: EntityId, metric: Metric, shape: &Arc<HistogramShape>, observation: Observation) {
        let new = || Value::Histogram(Box::new(Histogram::new(shape, observation.unix_nanos)));
        let series = self.series(entity, metric, shape.cost(), new);
        let Value::Histogram(histogram) = &mut series.value else { return };
        if !Arc::ptr_eq(&histogram.shape, shape) && histogram.shape != *shape {
            self.reshape(entity, metric, shape, observation.unix_nanos);
            return self.observe(entity, metric, shape, observation);
        }
        histogram.observe(observation);
    }

    /// Ends all series of a kind.
    pub(crate) fn end(&mut self, is_ended: impl Fn(Metric) -> bool) {
        for index in 0..self.entities.len() {
            let Some(entity) = &mut self.entities[index] else { continue };
            let (gone, kept) = std::mem::take(&mut entity.series).into_iter().partition(|series| is_ended(series.metric));
            entity.series = kept;
            let (key, counted, is_empty) = (entity.key.clone(), !entity.is_overflow, entity.series.is_empty());
            self.ended_series(&key, gone, counted);
            if is_empty {
                self.remove(index);
            }
        }
    }

    /// Follows that labels of such series are others now: those with one that changed end. The rest count on, or end in a while if
    /// nothing comes for them any more.
    pub(crate) fn relabel(&mut self, is_of: impl Fn(Metric) -> bool, changed: &[String]) {
        let doubted = NonZeroU64::new(self.collections + 1);
        for index in 0..self.entities.len() {
            let Some(entity) = &mut self.entities[index] else { continue };
            if entity.is_overflow || !entity.series.iter().any(|series| is_of(series.metric)) {
                continue;
            }
            if labels_of(&entity.key).any(|(name, _)| changed.iter().any(|changed| changed == name)) {
                self.remove(index);
            } else {
                entity.doubted = doubted;
            }
        }
    }

    /// Ends the series of an entity.
    pub(crate) fn remove(&mut self, index: usize) {
        let Some(entity) = self.entities[index].take() else { return };
        // An index is made by this table, so it fits.
        let id = index as u32;
        if let Ok(found) = self.by_key.find_entry(entity.hash, |other| *other == id) {
            found.remove();
        }
        self.free.push(id);
        if !entity.is_overflow {
            self.active_entities -= 1;
            self.changes.entities_removed += 1;
        }
        self.ended_series(&entity.key, entity.series, !entity.is_overflow);
    }

    /// Whether a series of these labels is there, and what it is.
    pub(crate) fn value(&self, key: &[u8], metric: Metric) -> Option<&Value> {
        let id = self.find(self.hasher.hash_one(key), key)?;
        let series = &self.entities[id.0 as usize].as_ref()?.series;
        series.iter().find(|series| series.metric == metric).map(|series| &series.value)
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<EntityId> {
        let is_it = |id: &u32| self.entities[*id as usize].as_ref().is_some_and(|entity| *entity.key == *key);
        self.by_key.find(hash, is_it).map(|id| EntityId(*id))
    }

    fn insert(&mut self, key: Box<[u8]>, hash: u64, is_overflow: bool, now_unix_nanos: u64) -> EntityId {
        let (series, born) = (Vec::new(), self.collections);
        let entity = Entity { key, hash, series, updated_unix_nanos: now_unix_nanos, born, is_overflow, doubted: None };
        let id = self.free.pop().unwrap_or_else(|| {
            self.entities.push(None);
            u32::try_from(self.entities.len() - 1).expect("fewer entities than fit into memory")
        });
        self.entities[id as usize] = Some(entity);
        let entities = &self.entities;
        self.by_key.insert_unique(hash, id, |id| entities[*id as usize].as_ref().map_or(0, |entity| entity.hash));
        EntityId(id)
    }

    fn overflow(&mut self, now_unix_nanos: u64) -> EntityId {
        let hash = self.hasher.hash_one(&*self.overflow_key);
        let id = match self.find(hash, &self.overflow_key) {
            Some(id) => id,
            None => self.insert(self.overflow_key.clone(), hash, true, now_unix_nanos),
        };
        if let Some(entity) = &mut self.entities[id.0 as usize] {
            entity.updated_unix_nanos = now_unix_nanos;
        }
        id
    }

    fn has_room(&self, cost: usize) -> bool {
        self.limits.series_max == 0 || self.active_series + cost <= self.limits.series_max
    }

    fn series(&mut self, entity: EntityId, metric: Metric, cost: usize, new: impl FnOnce() -> Value) -> &mut Series {
        let mut id = entity;
        let has_room = self.has_room(cost);
        let of = self.entities[id.0 as usize].as_ref().expect("an entity stays until the next collection");
        let is_known = of.series.iter().any(|series| series.metric == metric);
        if !is_known && !of.is_overflow {
            if has_room {
                self.active_series += cost;
                self.changes.series_added += cost as u64;
            } else {
                let updated = of.updated_unix_nanos;
                self.changes.series_limited += 1;
                // Each series of the same labels is another one.
                self.refused_series.insert(self.hasher.hash_one((of.hash, metric as u8)));
                self.refused_costs = (self.refused_costs.0 + 1.0, self.refused_costs.1 + cost as f64);
                id = self.overflow(updated);
            }
        }
        let series = &mut self.entities[id.0 as usize].as_mut().expect("it was just found").series;
        let at = series.iter().position(|series| series.metric == metric).unwrap_or_else(|| {
            series.push(Series { metric, value: new(), sent: false });
            series.len() - 1
        });
        &mut series[at]
    }

    /// Brings a histogram into the form that its processor makes now.
    fn reshape(&mut self, entity: EntityId, metric: Metric, shape: &Arc<HistogramShape>, now_unix_nanos: u64) {
        let entities = &mut self.entities;
        let series = |of: &Option<Entity>| of.as_ref().is_some_and(|of| of.series.iter().any(|series| series.metric == metric));
        // Where the labels' own series is over the limit, it is the overflow's that is observed.
        let index = if series(&entities[entity.0 as usize]) { entity.0 as usize } else { self.overflow(now_unix_nanos).0 as usize };
        let Some(of) = &mut self.entities[index] else { return };
        let Some(series) = of.series.iter_mut().find(|series| series.metric == metric) else { return };
        let Value::Histogram(histogram) = &mut series.value else { return };
        let before = histogram.shape.cost();
        let (bounds, native) = histogram.reshape(shape, now_unix_nanos);
        let forms = bounds.map(Form::Classic).into_iter().chain(native.then_some(Form::Native));
        if series.sent {
            self.ended.extend(forms.map(|form| Ended { key: of.key.clone(), metric, host_info_name: String::new(), form }));
        }
        if !of.is_overflow {
            self.active_series = self.active_series + shape.cost() - before;
        }
    }

    fn ended_series(&mut self, key: &[u8], gone: Vec<Series>, counted: bool) {
        for series in gone {
            let mut forms = Vec::new();
            let cost = match series.value {
                Value::Counter(_) | Value::Gauge(_) => {
                    forms.push(Form::Plain);
                    1
                }
                Value::Histogram(histogram) => {
                    forms.extend(histogram.classic.map(|classic| Form::Classic(classic.bounds)));
                    forms.extend(histogram.native.map(|_| Form::Native));
                    histogram.shape.cost()
                }
            };
            if counted {
                self.active_series -= cost;
                self.changes.series_removed += cost as u64;
            }
            if series.sent {
                self.floor_unix_millis = self.floor_unix_millis.max(self.collected_unix_millis);
                let Series { metric, .. } = series;
                let host_info_name = if metric == Metric::HostInfo { self.host_info_name.clone() } else { String::new() };
                self.ended.extend(forms.into_iter().map(|form| Ended {
                    key: key.into(),
                    metric,
                    host_info_name: host_info_name.clone(),
                    form,
                }));
            }
        }
    }
}
