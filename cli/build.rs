//! Makes the table of error pages, so that `hubferry explain` needs no files beside the binary.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

#[expect(clippy::disallowed_methods, reason = "a build script gets its folders from the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    let pages = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../docs/errors").canonicalize()?;
    println!("cargo::rerun-if-changed={}", pages.display());
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&pages)? {
        let path = entry?.path();
        if let (Some(name), Some("md")) =
            (path.file_stem().and_then(|name| name.to_str()), path.extension().and_then(|end| end.to_str()))
            && name != "README"
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        let path = pages.join(format!("{name}.md"));
        writeln!(table, "    ({name:?}, include_str!({:?})),", path.display().to_string())?;
    }
    table.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), table)?;
    Ok(())
}
