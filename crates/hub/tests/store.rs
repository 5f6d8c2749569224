//! The store after something happened to it: every state is told apart, and nothing outside is ever read.

use std::path::{Path, PathBuf};

use hub::{Reference, Silent, State, Store, StoreError};

const MANIFEST: &str = r#"{"format": 1, "model": "org/m", "endpoint": "https://huggingface.co", "revision": "main",
  "commit": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "pulled_at_unix_s": 1, "files": [{"path": "m-Q8_0.gguf",
  "size_bytes": 6, "hash": {"sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},
  "commit": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}"#;

/// A store with one model `org/m` that has this manifest and, as its file, this content.
fn store(manifest: &str, content: Option<&str>) -> (tempfile::TempDir, Store, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("models/org/m");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("fathom-manifest.json"), manifest).unwrap();
    if let Some(content) = content {
        std::fs::write(directory.join("m-Q8_0.gguf"), content).unwrap();
    }
    let store = Store::new(home.path());
    (home, store, directory)
}

fn verify(store: &Store) -> Result<u64, StoreError> {
    store.verify(&Reference::parse("org/m").unwrap(), &Silent)
}

#[test]
fn an_intact_model() {
    let (_home, store, directory) = store(MANIFEST, Some("hello\n"));
    assert_eq!(store.list().unwrap()[0].state, State::Complete);
    for name in ["org/m", "org/m:q8_0", "org/m:m-Q8_0.gguf"] {
        assert_eq!(store.resolve(name).unwrap(), directory.join("m-Q8_0.gguf"), "{name}");
    }
    assert_eq!(verify(&store).unwrap(), 6);
}

#[test]
fn damage_is_named() {
    for content in [None, Some("hello"), Some("hello!!")] {
        let (_home, store, _) = store(MANIFEST, content);
        assert!(matches!(store.list().unwrap()[0].state, State::Damaged(_)), "{content:?}");
        assert!(matches!(store.resolve("org/m"), Err(StoreError::Damaged { .. })), "{content:?}");
    }
    let (_home, store, _) = store(MANIFEST, Some("hellO\n"));
    assert!(matches!(verify(&store), Err(StoreError::Damaged { .. })), "same size, other content");
}

#[test]
fn manifests_that_lie() {
    let broken = [
        MANIFEST.replace("\"format\": 1", "\"format\": 2"),
        MANIFEST.replace("m-Q8_0.gguf", "../../../../etc/passwd"),
        MANIFEST.replace("m-Q8_0.gguf", "/etc/passwd"),
        MANIFEST.replace("5891b5b5", "5891B5B5"),
        MANIFEST.replace("\"size_bytes\": 6", "\"size_bytes\": -6"),
        MANIFEST[..200].to_string(),
        String::new(),
    ];
    for manifest in broken {
        let (_home, store, _) = store(&manifest, Some("hello\n"));
        assert!(matches!(store.resolve("org/m"), Err(StoreError::Manifest { .. })), "{manifest}");
        assert!(matches!(verify(&store), Err(StoreError::Manifest { .. })), "{manifest}");
        assert!(matches!(store.list().unwrap()[0].state, State::Damaged(_)), "{manifest}");
    }
}

#[test]
fn a_path_stays_a_path() {
    let (home, store, _) = store(MANIFEST, Some("hello\n"));
    let path = home.path().join("some.gguf");
    std::fs::write(&path, "x").unwrap();
    assert_eq!(store.resolve(path.to_str().unwrap()).unwrap(), path);
    for name in ["./absent.gguf", "/absent/model", "absent", "../x/y"] {
        assert!(matches!(store.resolve(name), Err(StoreError::NoSuchPath { .. })), "{name}");
    }
    assert!(matches!(store.resolve("org/absent"), Err(StoreError::NotPulled { .. })));
}

#[test]
fn strangers_in_the_store_are_left_out() {
    let (home, store, _) = store(MANIFEST, Some("hello\n"));
    for directory in ["models/org/empty", "models/.hidden/m", "models/org/bad name", "models/org/m@main"] {
        std::fs::create_dir_all(home.path().join(directory)).unwrap();
    }
    std::fs::write(home.path().join("models/file"), "x").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(Store::new(Path::new("/nonexistent/fathom")).list().unwrap().is_empty());
}
