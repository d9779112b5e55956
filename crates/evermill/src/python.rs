//! Which interpreter runs a DAG.

use std::env;
use std::path::{Path, PathBuf};

/// The DAG's `python=`, else `EVERMILL_PYTHON`, else the one of `$VIRTUAL_ENV`, else `python3`.
/// Whether it can be started is found out by whoever starts it.
pub(crate) fn interpreter(of_dag: Option<&str>) -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    choose(
        of_dag.map(Path::new),
        set("EVERMILL_PYTHON").map(PathBuf::from),
        set("VIRTUAL_ENV").map(PathBuf::from),
    )
}

/// The interpreter of a DAG that names none, and who chose it.
pub(crate) fn chosen() -> (PathBuf, &'static str) {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let by = match (set("EVERMILL_PYTHON"), set("VIRTUAL_ENV")) {
        (true, _) => "$EVERMILL_PYTHON",
        (false, true) => "$VIRTUAL_ENV",
        _ => "default",
    };
    (interpreter(None), by)
}

fn choose(dag: Option<&Path>, given: Option<PathBuf>, venv: Option<PathBuf>) -> PathBuf {
    dag.map(Path::to_path_buf)
        .or(given)
        .or_else(|| venv.map(|venv| venv.join("bin/python")))
        .unwrap_or_else(|| PathBuf::from("python3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dag_wins_over_the_variable_over_the_venv_over_the_path() {
        let (dag, given) = (
            Some(Path::new("/dag/python")),
            Some(PathBuf::from("/given")),
        );
        let venv = Some(PathBuf::from("/venv"));
        assert_eq!(
            choose(dag, given.clone(), venv.clone()),
            Path::new("/dag/python")
        );
        assert_eq!(choose(None, given, venv.clone()), Path::new("/given"));
        assert_eq!(choose(None, None, venv), Path::new("/venv/bin/python"));
        assert_eq!(choose(None, None, None), Path::new("python3"));
    }
}
