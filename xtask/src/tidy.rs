//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy can check.
//!
//! Each rule is a function from the tree to a list of faults. A fault names the file, the line
//! where there is one, what is wrong and how to put it right.

mod decisions;
mod evidence;
mod imports;
mod names;
mod programs;
mod sizes;
mod source;
mod words;

use std::path::Path;

use crate::workspace::{self, Fault};
use source::Tree;

/// Prints every fault of the workspace; fails when there is one.
pub(crate) fn run() -> Result<(), Fault> {
    let faults = check(&workspace::root())?;
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    match faults.len() {
        0 => {
            println!("tidy: every rule holds");
            Ok(())
        }
        count => Err(format!(
            "{count} house rules broken; STYLE.md gives the reasons"
        )),
    }
}

fn check(root: &Path) -> Result<Vec<Fault>, Fault> {
    let tree = Tree::read(root)?;
    let mut faults = imports::check(&workspace::metadata()?);
    faults.extend(sizes::check(&tree));
    faults.extend(names::check(&tree));
    faults.extend(words::check(&tree));
    faults.extend(decisions::check(&tree));
    faults.extend(evidence::check(&tree));
    faults.extend(programs::check(&tree));
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_house_rules() {
        let faults = check(&workspace::root()).expect("the workspace can be read");
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
