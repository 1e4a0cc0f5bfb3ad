use std::time::Duration;

use vivace_config::{Config, Overrides, RateStrategy};
use vivace_core::TenantId;

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).expect("a valid id")
}

const FILE: &str = r#"
overrides:
  "a":
    ingestion: {max_traces_per_user: 0, rate_strategy: global}
    compaction: {block_retention: 14d}
  b:
    max_traces_per_user: 5
    metrics_generator_processors: [span-metrics]
    metrics_generator_processor_span_metrics_dimensions: [a]
  "*":
    global: {max_bytes_per_trace: 7}
  c:
"#;

#[test]
fn a_tenant_inherits_what_it_does_not_set() {
    let yaml = "overrides: {defaults: {ingestion: {rate_limit_bytes: 1}, read: {max_search_duration: 1h}}}";
    let (config, _) = Config::parse(yaml, "t").expect("it is right");
    let (overrides, warnings) = Overrides::parse(&config.overrides.defaults, FILE, "overrides.yaml").expect("it is right");
    assert_eq!(warnings, []);

    let a = overrides.limits(&tenant("a"));
    assert_eq!(a.ingestion.rate_limit_bytes, 1, "not set: the default, not zero");
    assert_eq!(a.ingestion.max_traces_per_user, 0, "set to zero: no limit");
    assert_eq!(a.ingestion.rate_strategy, RateStrategy::Local, "the same for all tenants");
    assert_eq!(a.compaction.block_retention, Duration::from_secs(14 * 86400));
    assert_eq!(a.read.max_search_duration, Duration::from_secs(3600));
    assert_eq!(a.global.max_bytes_per_trace, 5_000_000, "an exact entry does not see the wildcard");

    let b = overrides.limits(&tenant("b"));
    assert_eq!(b.ingestion.max_traces_per_user, 5);
    assert_eq!(b.metrics_generator.processors, ["span-metrics"]);
    assert_eq!(b.metrics_generator.processor.span_metrics.dimensions, Some(vec!["a".to_owned()]));

    assert_eq!(overrides.limits(&tenant("someone")).global.max_bytes_per_trace, 7);
    assert_eq!(*overrides.limits(&tenant("c")), config.overrides.defaults);
    assert_eq!(overrides.tenants(), ["a", "b", "c"].map(tenant));
}

#[test]
fn a_file_without_tenants_is_fine() {
    for yaml in ["", "overrides:\n", "overrides: {}\n", "# nothing\n"] {
        let (overrides, _) = Overrides::parse(&Config::default().overrides.defaults, yaml, "o").unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(overrides.limits(&tenant("a")), overrides.defaults());
    }
}

#[test]
fn further_documents_are_warned_of() {
    let yaml = "overrides: {a: {ingestion: {max_traces_per_user: 3}}}\n---\noverrides: {b: {}}\n";
    let (overrides, warnings) = Overrides::parse(&Config::default().overrides.defaults, yaml, "o").expect("the first is right");
    assert_eq!(overrides.tenants(), ["a"].map(tenant));
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["line 2: a further YAML document begins here: only the first one is read"]
    );
    let (_, warnings) = Overrides::parse(&Config::default().overrides.defaults, "---\noverrides: {}\n...\n", "o").expect("it is right");
    assert_eq!(warnings, []);
}

#[test]
fn a_wrong_file_says_everything() {
    let yaml = "overrides:\n  a:\n    ingestion: {rate_limit: 1}\n    max_traces_per_usr: 1\n  b/c:\n    metrics_generator: {native_histogram_bucket_factor: 1}\nother: 1\n";
    let errors = Overrides::parse(&Config::default().overrides.defaults, yaml, "overrides.yaml").expect_err("it is wrong");
    assert_eq!(
        errors.to_string(),
        "overrides.yaml: 5 problems
  line 3: overrides.a.ingestion.rate_limit: unknown key; did you mean rate_limit_bytes?
  line 4: overrides.a.max_traces_per_usr: unknown key; did you mean max_traces_per_user?
  line 5: overrides.b/c: tenant id \"b/c\" contains the unsupported character '/'; letters, digits and !-_.*'() are allowed
  line 6: overrides.b/c.metrics_generator.native_histogram_bucket_factor: expected a number above 1; got 1
  line 7: other: unknown key; expected overrides"
    );
}

#[test]
fn both_forms_in_one_block_are_refused() {
    let errors = Config::parse("overrides:\n  defaults: {}\n  max_bytes_per_trace: 1\n", "t").expect_err("it is ambiguous");
    assert_eq!(
        errors.to_string(),
        "t: 1 problem\n  line 3: overrides.max_bytes_per_trace: limits are set here and under defaults in line 2; move all of them to defaults"
    );
}
