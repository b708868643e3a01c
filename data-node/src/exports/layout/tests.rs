use super::*;
use crate::exports::json::{decode, encode};

/// Limit of the objects of these tests, in bytes.
const LIMIT: u64 = 10_000;

fn file(path: &str, rows: u64, bytes: u64) -> StepFile {
    StepFile { path: path.to_owned(), rows, bytes }
}

fn json(object: &impl JsonObject) -> serde_json::Value {
    serde_json::from_slice(&encode("x", object, LIMIT).unwrap()).unwrap()
}

#[test]
fn names_of_objects_are_frozen() {
    let region = RegionId(7);
    assert_eq!(step_object(12), "_steps/00000000000000000012.json");
    assert_eq!(part_object(12, region), "_parts/00000000000000000012/7.json");
    assert!(part_object(12, region).starts_with(&parts_prefix(12)));
    let id = Uuid::from_u128(5);
    let expected = "data/00000000000000000012/7-00000000000000000000000000000005.parquet";
    assert_eq!(data_file(12, region, id), expected);
    assert!(data_file(12, region, id).starts_with(&data_prefix(12)));
}

#[test]
fn form_of_a_step_is_frozen() {
    let epochs = StepEpochs { after: None, as_of: 70 };
    let files = vec![file("data/b", 2, 20), file("data/a", 1, 10)];
    let step = ExportStep::new(Uuid::from_u128(5), 1, epochs, files);
    let expected = serde_json::json!({
        "format": 1, "export": "00000000-0000-0000-0000-000000000005", "step": 1, "after": null, "as_of": 70,
        "rows": 3, "bytes": 30,
        "files": [{ "path": "data/a", "rows": 1, "bytes": 10 }, { "path": "data/b", "rows": 2, "bytes": 20 }],
    });
    assert_eq!(json(&step), expected);
    let bytes = encode("s", &step, LIMIT).unwrap();
    assert_eq!(decode::<ExportStep>("s", &bytes).unwrap(), step);
    assert!(step.has_file("data/a") && step.has_file("data/b") && !step.has_file("data/c"));
}

// Data nodes of two releases may write the parts of one step.
#[test]
fn form_of_a_part_is_frozen() {
    let epochs = StepEpochs { after: Some(60), as_of: 70 };
    let part = ExportPart::new(Uuid::from_u128(5), epochs, vec![file("data/a", 1, 10)]);
    let expected = serde_json::json!({
        "format": 1, "export": "00000000-0000-0000-0000-000000000005", "after": 60, "as_of": 70,
        "files": [{ "path": "data/a", "rows": 1, "bytes": 10 }],
    });
    assert_eq!(json(&part), expected);
    let bytes = encode("p", &part, LIMIT).unwrap();
    assert_eq!(decode::<ExportPart>("p", &bytes).unwrap(), part);
}

#[test]
fn form_of_an_identity_is_frozen() {
    let cluster = ClusterId(Uuid::from_u128(1));
    let identity = ExportIdentity::new(cluster, Uuid::from_u128(5), "x", "t");
    let expected = serde_json::json!({
        "format": 1, "cluster": cluster.to_string(), "export": "00000000-0000-0000-0000-000000000005",
        "name": "x", "table": "t",
    });
    assert_eq!(json(&identity), expected);
}
