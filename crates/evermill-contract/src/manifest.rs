//! What a DAG file loads to.
