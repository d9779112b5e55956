//! The golden manifests, which the Python front end writes and checks as well.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Manifest, ManifestError, OffsetReset, SourceConfig, TaskKind, TriggerRule};

const GOLDEN: [(&str, &str); 13] = [
    (
        "approval",
        include_str!("../../golden/manifest-approval.json"),
    ),
    (
        "bookings",
        include_str!("../../golden/manifest-bookings.json"),
    ),
    (
        "model_update_pipeline",
        include_str!("../../golden/manifest-model_update_pipeline.json"),
    ),
    (
        "continuous_kafka_pipeline",
        include_str!("../../golden/manifest-continuous_kafka_pipeline.json"),
    ),
    ("demo", include_str!("../../golden/manifest-demo.json")),
    (
        "hourly_report",
        include_str!("../../golden/manifest-hourly_report.json"),
    ),
    ("jobs", include_str!("../../golden/manifest-jobs.json")),
    (
        "long_running_simulation",
        include_str!("../../golden/manifest-long_running_simulation.json"),
    ),
    ("mapped", include_str!("../../golden/manifest-mapped.json")),
    ("orders", include_str!("../../golden/manifest-orders.json")),
    (
        "readings",
        include_str!("../../golden/manifest-readings.json"),
    ),
    (
        "shipping",
        include_str!("../../golden/manifest-shipping.json"),
    ),
    (
        "simulation",
        include_str!("../../golden/manifest-simulation.json"),
    ),
];

fn golden(name: &str) -> Manifest {
    let (_, text) = GOLDEN
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a golden manifest");
    Manifest::decode(text.as_bytes()).expect("format 1")
}

fn value(name: &str) -> Value {
    serde_json::to_value(golden(name)).expect("JSON")
}

#[test]
fn golden_manifests_are_read_and_written_without_a_difference() {
    for (name, text) in GOLDEN {
        let read: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(value(name), read, "{name}");
    }
}

#[test]
fn golden_versions_hold() {
    let known: BTreeMap<String, String> =
        serde_json::from_str(include_str!("../../golden/versions.json")).expect("JSON");
    let found: BTreeMap<String, String> = GOLDEN
        .iter()
        .flat_map(|(name, _)| {
            let manifest = golden(name);
            let versions: Vec<_> = manifest
                .dags
                .iter()
                .map(|dag| (dag.id.clone(), manifest.version(dag).to_string()))
                .collect();
            versions
        })
        .collect();
    assert_eq!(found, known);
}

#[test]
fn a_version_ignores_instants_and_sees_everything_else() {
    let before = golden("continuous_kafka_pipeline");
    let version = |manifest: &Manifest| manifest.version(&manifest.dags[0]);

    let mut tomorrow = before.clone();
    tomorrow.dags[0].start_date = Some("2025-01-31T00:00:00+00:00".to_owned());
    assert_eq!(version(&tomorrow), version(&before));

    let mut edited = before.clone();
    edited.files[0].sha256 = "0".repeat(64);
    assert_ne!(version(&edited), version(&before));

    let mut renamed = before.clone();
    renamed.files[0].path = "other.py".to_owned();
    assert_ne!(version(&renamed), version(&before));

    let mut retried = before.clone();
    retried.dags[0].tasks[0].retries = 1;
    assert_ne!(version(&retried), version(&before));
}

#[test]
fn the_first_pipeline_reads_as_its_file_says() {
    let manifest = golden("continuous_kafka_pipeline");
    let dag = &manifest.dags[0];
    let source = &dag.sources[0];
    let SourceConfig::Kafka(kafka) = &source.config else {
        panic!("{source:?}")
    };
    assert_eq!(
        (source.id.as_str(), source.promoted_from_task.as_deref()),
        ("wait_for_new_message", Some("wait_for_new_message"))
    );
    assert_eq!(
        (kafka.topic.as_str(), kafka.group_id.as_deref()),
        ("my-topic", Some("my-group"))
    );
    assert_eq!(
        (kafka.auto_offset_reset, kafka.poke_interval_ms),
        (OffsetReset::Latest, Some(10_000))
    );
    assert_eq!(kafka.connection, "kafka_default");
    assert_eq!(
        (dag.tasks[0].id.as_str(), dag.tasks[0].kind),
        ("process_message_data", TaskKind::Call)
    );
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    for place in [
        "/dags/0",
        "/dags/0/tasks/0",
        "/dags/0/sources/0",
        "/dags/0/sources/0/config",
        "",
    ] {
        let mut manifest = value("orders");
        let object = manifest
            .pointer_mut(place)
            .and_then(Value::as_object_mut)
            .expect("an object");
        object.insert("retrys".to_owned(), json!(1));
        let error =
            Manifest::decode(manifest.to_string().as_bytes()).expect_err("an unknown field");
        assert!(error.to_string().contains("`retrys`"), "{place}: {error}");
    }
}

#[test]
fn another_format_is_told_apart_before_its_fields_are_judged() {
    let error = Manifest::decode(br#"{"format": 2, "graphs": []}"#).expect_err("format 2");
    assert!(
        matches!(error, ManifestError::Format { found: 2 }),
        "{error}"
    );
}

#[test]
fn old_names_of_trigger_rules_are_understood() {
    let read = |name: &str| serde_json::from_value::<TriggerRule>(json!(name)).expect("a rule");
    assert_eq!(read("dummy"), TriggerRule::Always);
    assert_eq!(
        read("none_failed_or_skipped"),
        TriggerRule::NoneFailedMinOneSuccess
    );
}
