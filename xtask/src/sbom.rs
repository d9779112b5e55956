//! `cargo xtask sbom`: what the binary is made of, as a bill of materials that other programs read (CycloneDX 1.6, JSON).
//!
//! The same tree gives the same text: there is neither a time nor a number of chance in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::workspace::{self, Fault};

/// The package that becomes the binary.
const BINARY: &str = "evermill";
/// What the page tells of itself, once it is built.
const PAGE: &str = "web/dist/licences.txt";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file to write; without it, standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Writes the bill.
pub(crate) fn run(args: &Args) -> Result<(), Fault> {
    let page = workspace::root().join(PAGE);
    let page = fs::read_to_string(&page).map_err(|error| {
        format!("{PAGE}: {error}; build the page before, as what ships has it: cargo xtask web")
    })?;
    let crates = Crates::read()?;
    let text = format!("{:#}\n", bill(&crates, &packages(&page)?)?);
    match &args.out {
        Some(path) => fs::write(path, text).map_err(|error| format!("{}: {error}", path.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// What cargo knows of everything that may be built, for the machine that we are on.
struct Crates {
    metadata: Value,
    /// SHA-256 of each package, by name and version.
    checksums: BTreeMap<(String, String), String>,
    /// Name and version of what the binary alone is built from: the metadata are of the whole workspace, with the features
    /// that its tools and tests want.
    built: BTreeSet<String>,
}

impl Crates {
    fn read() -> Result<Self, Fault> {
        let host = workspace::output(workspace::rustc().arg("-vV"))?;
        let host = host.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.ok_or("rustc names no host")?;
        let mut command = workspace::cargo();
        command.args(["metadata", "--format-version", "1", "--locked"]);
        command.args(["--filter-platform", host]);
        let text = workspace::output(&mut command)?;
        let metadata =
            serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
        let lock = workspace::root().join("Cargo.lock");
        let lock = fs::read_to_string(&lock).map_err(|error| format!("Cargo.lock: {error}"))?;
        Ok(Self {
            metadata,
            checksums: checksums(&lock),
            built: built()?,
        })
    }

    fn packages(&self) -> BTreeMap<&str, &Value> {
        let packages = self.metadata["packages"].as_array().into_iter().flatten();
        packages
            .filter_map(|package| Some((package["id"].as_str()?, package)))
            .collect()
    }

    /// Ids of what ends in the binary, and of each what it uses itself: dependencies of the code, and C sources that
    /// a `-src` crate brings for the build.
    fn shipped(&self) -> Result<BTreeMap<&str, BTreeSet<&str>>, Fault> {
        let packages = self.packages();
        let nodes = self.metadata["resolve"]["nodes"]
            .as_array()
            .into_iter()
            .flatten();
        let nodes: BTreeMap<&str, &Value> = nodes
            .filter_map(|node| Some((node["id"].as_str()?, node)))
            .collect();
        let root = packages
            .iter()
            .find(|(_, package)| package["name"] == BINARY);
        let root = *root.ok_or("there is no package for the binary")?.0;
        let (mut found, mut open) = (BTreeMap::new(), vec![root]);
        while let Some(id) = open.pop() {
            if found.contains_key(id) {
                continue;
            }
            let text = |id: &str, field: &str| packages[id][field].as_str().unwrap_or_default();
            let brings_source = |id: &str| text(id, "name").ends_with("-src");
            let is_built = |id: &str| {
                let known = format!("{} v{}", text(id, "name"), text(id, "version"));
                self.built.contains(&known)
            };
            let uses = nodes[id]["deps"].as_array().into_iter().flatten();
            let uses = uses.filter_map(|used| {
                let to = used["pkg"].as_str()?;
                let kinds = used["dep_kinds"].as_array().into_iter().flatten();
                let of = |wanted| kinds.clone().any(|kind| kind["kind"].as_str() == wanted);
                let is_code = of(None) && is_built(to);
                (is_code || of(Some("build")) && brings_source(to)).then_some(to)
            });
            // What a bringer of sources uses itself is for the build.
            let uses: BTreeSet<&str> = match brings_source(id) {
                true => BTreeSet::new(),
                false => uses.collect(),
            };
            open.extend(&uses);
            found.insert(id, uses);
        }
        Ok(found)
    }
}

/// As cargo lists what the binary is built from.
fn built() -> Result<BTreeSet<String>, Fault> {
    let mut command = workspace::cargo();
    command.args(["tree", "--locked", "--package", BINARY, "--edges", "normal"]);
    command.args(["--prefix", "none", "--no-dedupe", "--format", "{p}"]);
    let tree = workspace::output(&mut command)?;
    // What follows the version is where it lies, or that it is a macro.
    let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(tree.lines().map(words).collect())
}

/// Checksums of a lock file.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, name: &str| {
        let line = block
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} = \"")));
        line.map(|value| value.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").filter_map(|block| {
        let key = (field(block, "name")?, field(block, "version")?);
        Some((key, field(block, "checksum")?))
    });
    blocks.collect()
}

/// Name, version and licence of each package in the page.
fn packages(page: &str) -> Result<Vec<(String, String, String)>, Fault> {
    let heads = page
        .lines()
        .filter_map(|line| line.strip_prefix("== ")?.strip_suffix(" =="));
    let read = |head: &str| {
        let (name, rest) = head.split_once(' ')?;
        let (version, licence) = rest.split_once(", ")?;
        Some((name.to_owned(), version.to_owned(), licence.to_owned()))
    };
    let found: Vec<_> = heads
        .map(|head| read(head).ok_or_else(|| format!("{PAGE}: cannot read {head:?}")))
        .collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => Err(format!("{PAGE}: names no package")),
        false => Ok(found),
    }
}

fn bill(crates: &Crates, page: &[(String, String, String)]) -> Result<Value, Fault> {
    let packages = crates.packages();
    let shipped = crates.shipped()?;
    let text =
        |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
    let place = |id: &str| {
        let package = packages[id];
        format!(
            "pkg:cargo/{}@{}",
            text(package, "name"),
            text(package, "version")
        )
    };
    let (mut components, mut dependencies) = (Vec::new(), Vec::new());
    let mut root = Value::Null;
    for (id, uses) in &shipped {
        let package = packages[id];
        let (name, version) = (text(package, "name"), text(package, "version"));
        let mut component = json!({
            "type": "library",
            "bom-ref": place(id),
            "name": name,
            "version": version,
            "purl": place(id),
            // Older manifests write a slash for "or".
            "licenses": [{"expression": text(package, "license").replace('/', " OR ").replace("  ", " ")}],
        });
        if let Some(hash) = crates.checksums.get(&(name.clone(), version)) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
        }
        let depends: Vec<String> = uses.iter().map(|id| place(id)).collect();
        if name == BINARY {
            component["type"] = "application".into();
            root = component;
            let in_page = page.iter().map(|(name, version, _)| npm(name, version));
            let all: Vec<String> = depends.into_iter().chain(in_page).collect();
            dependencies.push(json!({"ref": place(id), "dependsOn": all}));
        } else {
            components.push(component);
            dependencies.push(json!({"ref": place(id), "dependsOn": depends}));
        }
    }
    for (name, version, licence) in page {
        components.push(json!({
            "type": "library",
            "bom-ref": npm(name, version),
            "name": name,
            "version": version,
            "purl": npm(name, version),
            "licenses": [{"expression": licence}],
        }));
    }
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn npm(name: &str, version: &str) -> String {
    format!("pkg:npm/{}@{version}", name.replace('@', "%40"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "== @a/b 1.2.3, MIT ==\n\ntext\n\n== c 4.5.6, ISC ==\n\ntext\n";

    /// S20: cargo itself, asked in another way, names the same crates.
    #[test]
    fn the_bill_names_every_crate_that_the_binary_is_made_of() {
        let crates = Crates::read().unwrap();
        let page = packages(PAGE).unwrap();
        let bill = bill(&crates, &page).unwrap();
        let components = bill["components"].as_array().unwrap();
        let named: BTreeSet<String> = components
            .iter()
            .filter_map(|one| one["purl"].as_str()?.strip_prefix("pkg:cargo/"))
            .map(|one| one.replace('@', " v"))
            .collect();
        let told = built().unwrap();
        let told: BTreeSet<String> = told
            .into_iter()
            .filter(|one| !one.is_empty() && !one.starts_with("evermill v"))
            .collect();
        let missing: Vec<_> = told.difference(&named).collect();
        assert!(told.len() > 100 && missing.is_empty(), "{missing:?}");
        // Beyond these only what brings sources of C.
        let more: Vec<_> = named.difference(&told).collect();
        assert!(more.iter().all(|one| one.contains("-src v")), "{more:?}");
        for source in ["openssl-src v", "libsqlite3-sys v", "rdkafka-sys v"] {
            assert!(named.iter().any(|one| one.starts_with(source)), "{source}");
        }
    }

    /// S20.
    #[test]
    fn everything_in_the_bill_has_a_licence_a_hash_and_a_place_in_the_graph() {
        let crates = Crates::read().unwrap();
        let bill = bill(&crates, &packages(PAGE).unwrap()).unwrap();
        let components = bill["components"].as_array().unwrap();
        let mut places = BTreeSet::new();
        for one in components.iter().chain([&bill["metadata"]["component"]]) {
            let place = one["bom-ref"].as_str().unwrap();
            assert!(places.insert(place), "{place} comes twice");
            let licence = one["licenses"][0]["expression"].as_str().unwrap();
            assert!(
                !licence.is_empty() && !licence.contains('/'),
                "{place}: {licence}"
            );
            let is_ours = place.starts_with("pkg:cargo/evermill");
            let hash = one["hashes"][0]["content"].as_str().map_or(0, str::len);
            if place.starts_with("pkg:cargo/") && !is_ours {
                assert_eq!(hash, 64, "{place}");
            }
        }
        assert!(places.contains("pkg:npm/%40a/b@1.2.3"), "{places:?}");
        for node in bill["dependencies"].as_array().unwrap() {
            let uses = node["dependsOn"].as_array().unwrap();
            for place in uses.iter().chain([&node["ref"]]) {
                assert!(places.contains(place.as_str().unwrap()), "{place}");
            }
        }
    }

    #[test]
    fn a_page_that_names_nothing_is_refused() {
        assert!(packages("").is_err() && packages("== odd ==\n").is_err());
        assert_eq!(packages(PAGE).unwrap().len(), 2);
    }
}
