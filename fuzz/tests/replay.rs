//! Every kept input of every target: the small corpora that reach most of the code, and what was once found.

use std::fs;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: vivace_fuzz::Allocator = vivace_fuzz::allocator();

#[test]
fn kept_inputs_are_harmless() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, run) in vivace_fuzz::TARGETS {
        run(&[]);
        let mut count = 0;
        for folder in ["corpus", "findings"] {
            let Ok(files) = fs::read_dir(root.join(folder).join(name)) else { continue };
            for file in files {
                let path = file.expect("a file").path();
                // The last line printed before a panic or an abort names the input.
                println!("{}", path.display());
                run(&fs::read(&path).expect("readable"));
                count += 1;
            }
        }
        assert!(count > 0, "no inputs of {name}");
    }
}

#[test]
fn every_target_is_built() {
    let manifest = include_str!("../Cargo.toml");
    for (name, _) in vivace_fuzz::TARGETS {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} has no program");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), vivace_fuzz::TARGETS.len());
}
