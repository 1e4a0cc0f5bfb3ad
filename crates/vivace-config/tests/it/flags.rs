use std::time::Duration;

use vivace_config::flags::Flags;
use vivace_config::{Config, LogLevel, RateStrategy, Target};

fn load(args: &[&str]) -> Config {
    let flags = Flags::parse(args).expect("the flags are right");
    Config::load(None, &flags).unwrap_or_else(|errors| panic!("{errors}")).0
}

#[test]
fn flags_are_read_as_go_reads_them() {
    let flags = Flags::parse(["-config.file=/conf/tempo.yaml", "-config.expand-env", "--config.verify=true", "-target", "ingester"]);
    let flags = flags.expect("the flags are right");
    assert_eq!(flags.config_file.as_deref(), Some("/conf/tempo.yaml"));
    assert!(flags.expand_env && flags.verify && !flags.version);
    let flags = Flags::parse(["-config.expand-env", "true", "-config.file", "a=b"]).expect("the flags are right");
    assert!(flags.expand_env);
    assert_eq!(flags.config_file.as_deref(), Some("a=b"));
}

#[test]
fn flags_win_over_the_file() {
    let yaml = "target: ingester\nserver: {http_listen_port: 1}\nstorage: {trace: {backend: local, local: {path: /a}}}";
    let flags = Flags::parse(["-target=all", "-server.http-listen-port=2", "-storage.trace.local.path=/b"]).expect("they are right");
    let (config, _) = Config::load(Some((yaml, "t")), &flags).expect("it is right");
    assert_eq!((config.target, config.server.http_listen_port), (Target::All, 2));
    assert_eq!(config.storage.trace.local.path, "/b");
}

#[test]
fn tempo_s_flags_set_their_keys() {
    let config = load(&[
        "-mem-ballast-size-mbs=1024",
        "-multitenancy.enabled",
        "-log.level=warn",
        "-ingester.availability-zone=zone-a",
        "-memberlist.host-port=a:7946",
        "-memberlist.host-port=b:7946",
        "-distributor.rate-limit-strategy=global",
        "-compactor.compaction.compaction.block-retention=2h",
        "-compactor.compaction.max-block-bytes=5",
        "-shutdown-delay",
        "5s",
        "-backend-scheduler.poll-interval",
        "1m",
        "-querier.max-concurrent-queries=3",
    ]);
    assert!(config.is_multitenant());
    assert_eq!(config.server.log_level, LogLevel::Warn);
    assert_eq!(config.ingester.lifecycler.availability_zone, "zone-a");
    assert_eq!(config.memberlist.join_members, ["a:7946", "b:7946"]);
    assert_eq!(config.overrides.defaults.ingestion.rate_strategy, RateStrategy::Global);
    assert_eq!(config.compactor.compaction.block_retention, Duration::from_secs(7200));
    assert_eq!(config.compactor.compaction.max_block_bytes, 5);
    assert_eq!(config.shutdown_delay, Duration::from_secs(5));
    assert_eq!(config.querier.max_concurrent_queries, 3);
}

#[test]
fn a_wrong_flag_is_named() {
    for (args, want) in [
        (
            &["-server.http-listen-prot=1"][..],
            "flag provided but not defined: -server.http-listen-prot; did you mean -server.http-listen-port?",
        ),
        (&["-config.file"], "flag needs an argument: -config.file"),
        (&["-config.verify=maybe"], "invalid value \"maybe\" for flag -config.verify: expected true or false"),
        (&["-storage={}"], "flag provided but not defined: -storage; did you mean -storage.trace.backend?"),
    ] {
        assert_eq!(Flags::parse(args).expect_err(want).to_string(), want);
    }
    let flags = Flags::parse(["-server.http-listen-port=high", "-target=everything"]).expect("the names are right");
    let errors = Config::load(None, &flags).expect_err("the values are wrong").to_string();
    assert!(errors.contains("-server.http-listen-port: expected a whole number from 0 to 65535; got \"high\""), "{errors}");
    assert!(errors.contains("-target: expected all, scalable-single-binary, distributor,"), "{errors}");
}

#[test]
fn usage_lists_flags_with_their_defaults() {
    let usage = Flags::usage("vivace");
    assert!(usage.contains("  -server.http-listen-port\n    \tKey server.http_listen_port. (default 3200)\n"), "{usage}");
}
