use super::*;

fn observed(texts: &[&str]) -> Texts {
    let mut observed = Texts::default();
    for text in texts {
        observed.observe(text);
    }
    observed
}

const CASES: [(&[&str], &str); 48] = [
    (&["true", "false"], "bool"),
    (&["TRUE", "False"], "bool"),
    (&["t"], "utf8"),
    (&["true", "1"], "utf8"),
    (&["1", "-2", "0"], "int64"),
    (&[" 1 "], "int64"),
    (&["9223372036854775807", "-9223372036854775808"], "int64"),
    (&["9223372036854775808"], "utf8"),
    (&["1", "9223372036854775808"], "utf8"),
    (&["007"], "utf8"),
    (&["1", "007"], "utf8"),
    (&["-01"], "utf8"),
    (&["+1"], "utf8"),
    (&["1.5", "-0.25", ".5", "1e3", "2E-7"], "float64"),
    (&["1", "1.5"], "float64"),
    (&["00.5"], "utf8"),
    (&["1e400"], "utf8"),
    (&["1.2.3"], "utf8"),
    (&["9007199254740992", "0.5"], "float64"),
    (&["9007199254740993", "0.5"], "utf8"),
    (&["NaN", "1", "-inf", "inf"], "float64"),
    (&["nan"], "utf8"),
    (&["infinity"], "utf8"),
    (&["-"], "utf8"),
    (&["."], "utf8"),
    (&["1", "x"], "utf8"),
    (&["1", " "], "utf8"),
    (&["0x10"], "utf8"),
    (&["1_000"], "utf8"),
    (&["2013-01-01", "1969-12-31"], "date32"),
    (&["2013-02-30"], "utf8"),
    (&["2013-1-1"], "utf8"),
    (&["2013-01-01", "1"], "utf8"),
    (&["2013-01-01", "2013-01-01T10:00:00Z"], "utf8"),
    (&["2013-01-01T10:00:00Z", "2013-01-01 10:00:00+02:00"], "timestamp(s, UTC)"),
    (&["2013-01-01T10:00:00.5Z", "2013-01-01T10:00:00Z"], "timestamp(ms, UTC)"),
    (&["2013-01-01T10:00:00.000Z"], "timestamp(ms, UTC)"),
    (&["2013-01-01T10:00:00.1234Z"], "timestamp(us, UTC)"),
    (&["2013-01-01t10:00:00.1234567-05:30"], "timestamp(ns, UTC)"),
    (&["9999-01-01T00:00:00.123456Z"], "timestamp(us, UTC)"),
    (&["9999-01-01T00:00:00Z", "2013-01-01T00:00:00.1234567Z"], "utf8"),
    (&["2013-01-01T00:00:00.1234567891Z"], "utf8"),
    (&["2013-01-01T10:00:00"], "utf8"),
    (&["2013-01-01T10:00Z"], "utf8"),
    (&["2013-01-01T25:00:00Z"], "utf8"),
    (&["2013-01-01T10:00:00+0200"], "utf8"),
    (&["2013-01-01T10:00:00,5Z"], "utf8"),
    (&["2013-01-01T10:00:00.Z"], "utf8"),
];

#[test]
fn texts_have_a_type_without_loss() {
    for (texts, expected) in CASES {
        let data_type = observed(texts).data_type().unwrap();
        assert_eq!(data_type.to_string(), expected, "{texts:?}");
        let reversed: Vec<&str> = texts.iter().rev().copied().collect();
        assert_eq!(observed(&reversed).data_type(), Some(data_type), "{texts:?}");
    }
    assert_eq!(observed(&[]).data_type(), None);
}

#[test]
fn join_equals_observation_of_all_texts() {
    for (left, _) in CASES {
        for (right, _) in CASES {
            let mut joined = observed(left);
            joined.join(observed(right));
            let all = observed(&[left, right].concat());
            assert_eq!(joined.data_type(), all.data_type(), "{left:?} {right:?}");
        }
    }
}

#[test]
fn json_strings_are_never_numbers() {
    for (texts, expected) in [
        (&["12"][..], "utf8"),
        (&["true"], "utf8"),
        (&["1.5"], "utf8"),
        (&["2013-01-01"], "date32"),
        (&["2013-01-01T10:00:00Z"], "timestamp(s, UTC)"),
        (&["2013-01-01", "x"], "utf8"),
    ] {
        assert_eq!(observed(texts).string_type().unwrap().to_string(), expected, "{texts:?}");
    }
    assert_eq!(observed(&[]).string_type(), None);
}
