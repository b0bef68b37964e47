//! The committed JSON Schema against the types it is generated from.

use std::{fs, path::Path};

use super::*;

fn generated() -> String {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".to_owned(), "hubferry.yaml".into());
    let mut text = serde_json::to_string_pretty(&schema).unwrap();
    text.push('\n');
    text
}

/// `UPDATE_SCHEMA=1 cargo test --lib committed_schema` writes the file.
#[test]
fn the_committed_schema_is_in_step_with_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/hubferry.schema.json");
    let generated = generated();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "schema/hubferry.schema.json is not what the settings types say; write it again with\n    UPDATE_SCHEMA=1 cargo test --lib committed_schema"
    );
}
