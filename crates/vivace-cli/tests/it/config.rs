use crate::cli;

#[tokio::test]
async fn a_file_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tempo.yaml");
    let file = path.to_str().expect("a path");

    std::fs::write(&path, "server: {http_listen_port: 80}\nstorage: {trace: {backend: local, local: {path: /tmp/b}}}\n").expect("written");
    assert_eq!(cli(&["config", "check", file]).await, Ok(format!("{file} is valid\n")));

    std::fs::write(&path, "cache: {}\nstorage: {trace: {backend: local, local: {path: /tmp/b}}}\n").expect("written");
    let got = cli(&["config", "check", file, "--", "-target=ingester"]).await.expect("it is valid");
    let want = format!(
        "Worth a look:
  line 2: storage.trace.backend: local folders are not shared between processes, and this one is ingester only
Without effect:
  line 1: cache: accepted, without effect in Vivace
{file} is valid, with 2 remarks\n"
    );
    assert_eq!(got, want);

    std::fs::write(&path, "sever: {}\ncompactor: 1\n").expect("written");
    let got = cli(&["config", "check", file]).await.expect_err("it is wrong");
    assert!(
        got.contains("3 problems\n  storage.trace.backend: is not set") && got.contains("line 1: sever: unknown key; did you mean server?"),
        "{got}"
    );

    let got = cli(&["config", "check", "/nowhere.yaml"]).await.expect_err("it is not there");
    assert!(got.starts_with("cannot read /nowhere.yaml"), "{got}");
}

#[tokio::test]
async fn limits_of_tenants_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("overrides.yaml");
    let file = path.to_str().expect("a path");
    std::fs::write(&path, "overrides:\n  a:\n    ingestion: {rate_limit_bytes: much}\n").expect("written");
    let got = cli(&["config", "check-overrides", file]).await.expect_err("it is wrong");
    assert!(got.contains("line 3: overrides.a.ingestion.rate_limit_bytes: expected a whole number"), "{got}");
}

/// As after `vivace-cli ... | head -1`.
#[test]
fn a_reader_that_has_enough_ends_the_program_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("overrides.yaml");
    std::fs::write(&file, "overrides: {}\n").expect("written");
    let (file, folder) = (file.display().to_string(), folder.path().display().to_string());
    for args in [&["config", "check-overrides", &file][..], &["block", "ls", &folder], &["query", "explain", "{ name = `a` }"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vivace-cli"));
        let ended = command.args(args).stdout(writer).output().expect("runs");
        assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned()), (Some(141), String::new()), "{args:?}");
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vivace-cli"));
    let ended = command.arg("--help").stdout(writer).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
