//! Every service in one process: the same code and the same gRPC paths as in six processes, over loopback.
//!
//! Start with [`run`].

use anyhow::Context as _;
use vivace_config::{Config, KvStore, Target};
use vivace_core::metric::Metric;
use vivace_ring::{GossipOptions, Membership, OwnServices, Role};
use vivace_server::{Process, clock, host_name};
use vivace_storage::{Bucket, PollOptions, Poller};

/// Every metric there is, by who has it: what docs/metrics.md is made of.
pub const METRICS: [(&str, &[Metric]); 9] = [
    ("Distributor", vivace_distributor::METRICS),
    ("Ingester", vivace_ingester::METRICS),
    ("Query-frontend", vivace_query_frontend::METRICS),
    ("Querier", vivace_querier::METRICS),
    ("Compactor", vivace_compactor::METRICS),
    ("Metrics-generator", vivace_metrics_generator::METRICS),
    ("The bucket: ingester, query-frontend, querier, compactor", vivace_storage::METRICS),
    ("Rings: all but the query-frontend", vivace_ring::METRICS),
    ("Every process", vivace_server::METRICS),
];

/// Runs the services of `config.target` until the process is told to stop.
///
/// # Errors
/// The first part that cannot start, or that failed while it ran.
pub async fn run(mut config: Config) -> anyhow::Result<()> {
    let target = config.target;
    if target == Target::All {
        alone(&mut config);
    }
    let mut process = Process::start(&config, "vivace", &METRICS.map(|(_, metrics)| metrics)).await?;
    let overrides = process.overrides(&config)?;
    let membership = if target == Target::All {
        Membership::alone(clock::unix_nanos, OwnServices::new(process.grpc_services()))
    } else {
        gossip(&config).await?
    };

    // The last that starts drains first: spans stop coming in before anything behind them goes away.
    let stores = [Target::Ingester, Target::Querier, Target::QueryFrontend, Target::Compactor];
    let bucket =
        if stores.into_iter().any(|service| target.includes(service)) { Some(open_bucket(&config, &mut process).await?) } else { None };
    // Drains last: its receivers may be down, and no span must wait for them on its way to the bucket.
    if target == Target::MetricsGenerator || target.is_single_binary() && !config.metrics_generator.storage.path.is_empty() {
        vivace_metrics_generator::start(&config, &membership, overrides.clone(), &mut process).await?;
    }
    if let Some(bucket) = &bucket {
        if target.includes(Target::Ingester) {
            vivace_ingester::start(&config, &membership, bucket.clone(), overrides.clone(), &mut process).await?;
        }
        // One block list for all who read it; the compactor's also builds the tenants' indexes.
        let poller = if target.includes(Target::Compactor) {
            vivace_compactor::start(&config, &membership, bucket.clone(), overrides.clone(), &mut process).await?
        } else {
            let poller = Poller::reader(bucket.clone(), PollOptions::from(&config.storage.trace), clock::unix_nanos);
            let (polling, stop) = (poller.clone(), process.stop_token());
            process.spawn("block list", async move {
                polling.run(stop).await;
                Ok(())
            });
            poller
        };
        if target.includes(Target::Querier) {
            let ingesters = membership.ring(Role::Ingester);
            vivace_querier::start(&config, &host_name(), ingesters, bucket.clone(), poller.clone(), &mut process);
        }
        if target.includes(Target::QueryFrontend) {
            vivace_query_frontend::start(&config, poller.blocklist(), overrides.clone(), &mut process).await?;
        }
    }
    if target.includes(Target::Distributor) {
        vivace_distributor::start(&config, &membership, overrides, &mut process).await?;
    }
    process.add_http(vivace_ring::router(&membership, &[Role::Ingester, Role::Distributor, Role::Compactor, Role::MetricsGenerator]));
    process.run().await
}

/// One process has nobody to replicate to, no ring to share and no query-frontend but its own.
fn alone(config: &mut Config) {
    config.ingester.lifecycler.ring.replication_factor = 1;
    config.compactor.ring.kvstore.store = KvStore::Inmemory;
}

async fn gossip(config: &Config) -> anyhow::Result<Membership> {
    let options = GossipOptions::from_config(&config.memberlist, &host_name(), clock::unix_nanos())?;
    Ok(Membership::start(options, clock::unix_nanos).await?)
}

async fn open_bucket(config: &Config, process: &mut Process) -> anyhow::Result<Bucket> {
    let writes = config.target.includes(Target::Ingester) || config.target.includes(Target::Compactor) && !config.compactor.disabled;
    let opening = async {
        let (storage, env) = (&config.storage.trace, &vivace_server::environment);
        if writes { Bucket::open_for_writing(storage, env).await } else { Bucket::open(storage, env).await }
    };
    process.wait_for("the bucket is not open yet", opening).await.context("could not open the bucket")
}
