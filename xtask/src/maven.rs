//! Programs of the JVM, as jars from Maven's repository in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::guard::remove;
use crate::kafka_broker::{create, write};
use crate::programs;
use crate::workspace::{self, Fault};

const DOWNLOAD_ATTEMPTS_MAX: u32 = 3;

/// What is wanted: group, artifact, version.
pub(crate) type Artifact<'a> = (&'a str, &'a str, &'a str);

/// The folder with these artifacts and all they need; downloaded unless the cache has it under this
/// name.
pub(crate) fn jars(name: &str, wanted: &[Artifact<'_>]) -> Result<PathBuf, Fault> {
    let folder = workspace::cache().join(name);
    let jars = folder.join("jars");
    if !jars.is_dir() {
        download(name, &folder, &jars, wanted)?;
    }
    Ok(jars)
}

/// Downloads into a folder of our own and renames it at the end, so that `jars` is whole or
/// absent, also when two of us download at once.
fn download(name: &str, folder: &Path, jars: &Path, wanted: &[Artifact<'_>]) -> Result<(), Fault> {
    let maven = programs::require(&programs::MAVEN)?;
    let part = folder.join(format!("part-{}", process::id()));
    create(&part)?;
    let pom = part.join("pom.xml");
    write(&pom, &pom_text(wanted))?;
    let mut result = Ok(());
    for _ in 0..DOWNLOAD_ATTEMPTS_MAX {
        let mut command = Command::new(&maven);
        command
            .args(["--batch-mode", "--quiet", "--update-snapshots", "--file"])
            .arg(&pom);
        command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
        command.arg(format!("-DoutputDirectory={}", part.join("jars").display()));
        result = workspace::output(&mut command).map(drop);
        if result.is_ok() {
            break;
        }
    }
    result.map_err(|fault| format!("{name} cannot be downloaded: {fault}"))?;
    let renamed = fs::rename(part.join("jars"), jars);
    remove(&part);
    match renamed {
        Err(_) if jars.is_dir() => Ok(()),
        other => other.map_err(|error| format!("{}: {error}", jars.display())),
    }
}

fn pom_text(wanted: &[Artifact<'_>]) -> String {
    let dependency = |(group, artifact, version): &Artifact<'_>| {
        format!(
            "    <dependency>
      <groupId>{group}</groupId>
      <artifactId>{artifact}</artifactId>
      <version>{version}</version>
    </dependency>
"
        )
    };
    let dependencies: String = wanted.iter().map(dependency).collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>evermill</groupId>
  <artifactId>tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}  </dependencies>
</project>
"
    )
}
