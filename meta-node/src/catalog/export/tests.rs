use super::*;
use crate::catalog::{codec, keys};

/// An export in its third step.
fn export(name: &str, id: u128, table: u32) -> Export {
    Export {
        id: Uuid::from_u128(id),
        name: name.to_owned(),
        table: TableId(table),
        target: r#"{"url":"s3://b/p"}"#.to_owned(),
        interval_ms: 10_000,
        as_of: Epoch(1 << 40),
        created_ms: 7,
        steps: 2,
        frontier: Some(Epoch((1 << 40) + 1)),
        advanced_ms: 1_800_000_000_000,
        step_as_of: Some(Epoch((1 << 40) + 2)),
        files: 3,
        rows: 300,
        bytes: 4_096,
    }
}

fn names<'a>(exports: impl Iterator<Item = &'a Arc<Export>>) -> Vec<&'a str> {
    exports.map(|export| export.name.as_str()).collect()
}

#[test]
fn exports_are_found_by_name_id_and_table() {
    let mut exports = Exports::default();
    for of in [export("b", 1, 1), export("a", 2, 2), export("c", 3, 1)] {
        exports.put(of);
    }
    assert_eq!(names(exports.iter()), ["a", "b", "c"]);
    assert_eq!(names(exports.after("a")), ["b", "c"]);
    assert_eq!(names(exports.for_table(TableId(1))), ["b", "c"]);
    assert_eq!(names(exports.for_table(TableId(3))), Vec::<&str>::new());
    assert_eq!(exports.by_id(Uuid::from_u128(3)).unwrap().name, "c");
    // Another export with the name.
    exports.put(export("c", 4, 2));
    assert_eq!((exports.count(), exports.by_id(Uuid::from_u128(3))), (3, None));
    assert_eq!(names(exports.for_table(TableId(2))), ["a", "c"]);
    for name in ["a", "b", "c", "c"] {
        exports.remove(name);
    }
    assert_eq!(exports, Exports::default());
}

#[test]
fn hold_of_an_export_keeps_its_frontier() {
    let begun = Export { steps: 0, frontier: None, step_as_of: None, ..export("b", 1, 1) };
    assert_eq!((begun.hold().epoch, begun.hold().name.as_str()), (Epoch(1 << 40), "export:b"));
    let continued = export("b", 1, 1);
    assert_eq!(continued.hold().epoch, Epoch((1 << 40) + 1));
    let mut exports = Exports::default();
    exports.put(continued.clone());
    assert_eq!(exports.for_hold(&continued.hold()).unwrap().id, continued.id);
    for name in ["b", "export:a", "export-token:b"] {
        let other = ReadHold { name: name.to_owned(), ..continued.hold() };
        assert_eq!(exports.for_hold(&other), None, "{name}");
    }
}

#[test]
fn first_step_has_the_epoch_of_the_contents() {
    let begun = Export { steps: 0, frontier: None, step_as_of: None, ..export("b", 1, 1) };
    let accepted = |of: &Export| [0, 1, 2].map(|later| of.is_next_epoch(Epoch((1 << 40) + later)));
    assert_eq!(accepted(&begun), [true, false, false]);
    assert_eq!(accepted(&export("b", 1, 1)), [false, false, true]);
}

#[test]
fn stored_export_bytes_are_frozen() {
    let of = export("b", 5, 300);
    assert_eq!(keys::export("b"), b"meta/export/b");
    let stored = codec::encode_message(&v1::Export::from(&of));
    let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, STORED);
    let read = codec::decode_message::<v1::Export>("export", &stored).unwrap();
    assert_eq!(Export::try_from(read).unwrap(), of);
    let begun =
        Export { steps: 0, frontier: None, advanced_ms: 0, step_as_of: None, ..export("b", 5, 1) };
    assert_eq!(Export::try_from(v1::Export::from(&begun)).unwrap(), begun);
}

#[test]
fn damaged_exports_are_refused() {
    let stored = v1::Export::from(&export("b", 5, 300));
    for damaged in [
        v1::Export { id: vec![1].into(), ..stored.clone() },
        v1::Export { steps: 0, ..stored.clone() },
        v1::Export { frontier: 0, ..stored.clone() },
        v1::Export { frontier: 1, ..stored.clone() },
        v1::Export { step_as_of: stored.frontier, ..stored.clone() },
        v1::Export { steps: 0, frontier: 0, ..stored.clone() },
    ] {
        assert!(Export::try_from(damaged).is_err());
    }
}

const STORED: &str = "01674070c00a100000000000000000000000000000000512016218ac0222127b2275726c223a2273\
                      333a2f2f622f70227d28904e3080808080802038074002488180808080205080a0f1c2b134588280\
                      80808020600368ac02708020";
