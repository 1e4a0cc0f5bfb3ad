use vivace_config::{Backend, Config};

#[test]
fn a_short_file_is_read_over_the_defaults() {
    let yaml = "server: {http_listen_port: 3100}\nstorage:\n  trace:\n    backend: local\n";
    let (config, warnings) = Config::parse(yaml, "tempo.yaml").expect("the file is right");
    assert_eq!(config.server.http_listen_port, 3100);
    assert_eq!(config.server.grpc_listen_port, 9095);
    assert_eq!(config.storage.trace.backend, Backend::Local);
    assert!(warnings.is_empty());
}
