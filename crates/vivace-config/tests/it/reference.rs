use std::path::Path;

/// The page in `docs/` is what the code says. `UPDATE_GOLDEN=1` rewrites it.
#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let want = vivace_config::reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder can be made");
        std::fs::write(&path, &want).expect("the page can be written");
    }
    let got = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "docs/configuration.md is not current: run this test with UPDATE_GOLDEN=1");
}
