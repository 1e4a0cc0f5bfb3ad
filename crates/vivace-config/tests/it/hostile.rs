//! Files that are not what they should be: too large, of another kind, made to hurt. What is said of them is short, and none
//! of their secrets is in it.

use std::time::{Duration, Instant};

use vivace_config::flags::Flags;
use vivace_config::{Config, Limits, Overrides, expand};

/// What is wrong with a file, as both kinds of file; and it takes not long to say so.
#[track_caller]
fn refused(yaml: &str) -> [String; 2] {
    let begun = Instant::now();
    let config = Config::load(Some((yaml, "tempo.yaml")), &Flags::default()).expect_err("no configuration").to_string();
    let overrides = Overrides::parse(&Limits::default(), yaml, "overrides.yaml").expect_err("no overrides").to_string();
    assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    [config, overrides]
}

#[track_caller]
fn is_short(yaml: &str) -> [String; 2] {
    let errors = refused(yaml);
    for error in &errors {
        assert!(error.len() < 60_000, "{} bytes: {:.500}", error.len(), error);
        assert!(error.lines().all(|line| line.len() < 1500), "{error:.5000}");
    }
    errors
}

#[test]
fn errors_of_large_files_are_short_and_name_the_line() {
    let long = "x".repeat(500_000);
    let [config, overrides] = is_short(&long);
    assert!(config.contains("line 1: expected a block with keys") && !config.contains("xxx"), "{config}");
    assert!(overrides.contains("line 1: expected a block with keys") && !overrides.contains("xxx"), "{overrides}");
    is_short(&format!("overrides: {long}\nserver: {long}\n"));
    is_short(&format!("overrides:\n  a:\n    ingestion: {{rate_limit_bytes: \"{long}\"}}\nserver: {{http_listen_port: {long}}}\n"));
    is_short(&format!("overrides:\n  {long}: 1\n{long}: 1\n"));
    is_short(&format!("overrides: {{a: {{{long}: 1, storage: {{parquet_dedicated_columns: [{{scope: {long}}}]}}}}}}\n{long}: {{}}\n"));
    // A table of another program, as text.
    let table: String = (0..10_000).map(|n| format!("row{n}: value {n}\n")).collect();
    let [config, _] = is_short(&table);
    assert!(config.contains("tempo.yaml: 1000") && config.contains("\n  and 99"), "{config}");
    let tenants: String = (0..5000).map(|n| format!("  t{n}: {{no_such_limit: 1}}\n")).collect();
    is_short(&format!("overrides:\n{tenants}"));
    // Neither kind of file is binary.
    let binary: String = (0..30_000u32).map(|n| char::from_u32(n * 7 % 0x250).unwrap_or('?')).collect();
    is_short(&binary);
}

/// Each key was once compared with all before it.
#[test]
fn many_keys_take_not_much_longer_than_few() {
    let keys: String = (0..100_000).map(|n| format!("  k{n}: 1\n")).collect();
    let begun = Instant::now();
    Config::parse(&format!("live_store:\n{keys}"), "t").expect("valid");
    assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    let tenants: String = (0..3000).map(|n| format!("  tenant-{n}: {{ingestion: {{max_traces_per_user: {n}}}}}\n")).collect();
    let (overrides, _) = Overrides::parse(&Limits::default(), &format!("overrides:\n{tenants}"), "t").expect("valid");
    assert_eq!(overrides.tenants().len(), 3000);
}

#[test]
fn a_few_aliases_do_not_become_millions_of_values() {
    // Nine times nine times nine ...
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..20 {
        let before = format!("*a{},", n - 1).repeat(9);
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    for error in is_short(&bomb) {
        assert!(error.contains("more than 4 million values"), "{error}");
    }
    is_short(&format!("{bomb}live_store: *a19\n"));
    // The same with merge keys: each block has all keys of those before.
    let keys: String = (0..100).map(|n| format!("k{n}: 1, ")).collect();
    let mut merges = format!("m0: &m0 {{{keys}}}\n");
    for n in 1..20 {
        let before = format!("*m{},", n - 1).repeat(20);
        merges.push_str(&format!("m{n}: &m{n} {{<<: [{before}], n{n}: 1}}\n"));
    }
    is_short(&merges);
    for deep in ["[", "{a: ", "- ", "? "] {
        is_short(&deep.repeat(100_000));
    }
}

/// A file as people write it.
#[test]
fn aliases_for_thousands_of_tenants_are_fine() {
    let yaml: String = (0..3000).map(|n| format!("  t{n}: *large\n")).collect();
    let yaml = format!("overrides:\n  large: &large {{ingestion: {{max_traces_per_user: 9}}, global: {{max_bytes_per_trace: 9}}}}\n{yaml}");
    assert_eq!(Overrides::parse(&Limits::default(), &yaml, "t").expect("valid").0.tenants().len(), 3001);
}

#[test]
fn secrets_in_the_wrong_place_are_not_shown() {
    for yaml in [
        "hunter2",
        "server: {http_listen_port: 1}\nstorage: user:hunter2@minio",
        "storage: {trace: {s3: {secret_key: [hunter2]}}}\nx: 1",
        "storage: {trace: {s3: {secret_key: {value: hunter2}}}}\nx: 1",
        "storage: {trace: {s3: {sse: {encryption_key: [hunter2]}}}}\nx: 1",
        "metrics_generator: {storage: {remote_write: 'https://me:hunter2@prometheus/write'}}",
        "metrics_generator: {storage: {remote_write: [{url: 'me:hunter2@prometheus/write'}]}}",
        "metrics_generator: {storage: {remote_write: [{url: 'ftp://me:hunter2@prometheus/write'}]}}",
        "metrics_generator: {storage: {remote_write: [{url: 'http://a', basic_auth: 'me:hunter2'}]}}",
        "metrics_generator: {storage: {remote_write: [{url: 'http://a', authorization: 'Bearer hunter2'}]}}",
        "storage: {trace: {azure: {storage_account_key: [hunter2], use_managed_identity: 7}}}",
    ] {
        for error in refused(yaml) {
            assert!(!error.contains("hunter2"), "{yaml}\n{error}");
        }
    }
    let error = expand("a: ${PASSWORD!hunter2}", &|_| None).expect_err("no such form").to_string();
    assert!(error.contains("PASSWORD") && !error.contains("hunter2"), "{error}");
}

#[test]
fn variables_are_replaced_in_one_walk_and_do_not_fill_memory() {
    let begun = Instant::now();
    let text = "a: ${A}\n".repeat(200_000);
    assert_eq!(expand(&text, &|_| Some("1".to_owned())).expect("expands").len(), 5 * 200_000);
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    let long = "x".repeat(1 << 20);
    let error = expand(&text, &|_| Some(long.clone())).expect_err("too much").to_string();
    assert!(error.contains("larger than 128 MiB"), "{error}");
    // Lines are counted across several variables and their defaults.
    assert_eq!(expand("${A}\n${A:-\n\n}\n ${A!}", &|_| None).expect_err("no such form").line, 5);
}
