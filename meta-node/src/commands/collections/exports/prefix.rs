//! Prefixes of exports, in the form in which they are compared (pure).
//!
//! Data nodes read the URL of a target by the rules of URLs, so that several texts name one prefix. Two texts of one prefix that are
//! not recognized here, such as a symbolic link or another name of a server, differ: the object `_export.json` keeps their
//! exports apart.

use serde_json::Value;

use super::checked::parsed;

/// Prefix of a target. Apply depends on its form, so it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetPrefix {
    /// URL for people, without slashes at its end.
    pub(super) url: String,
    store: TargetStore,
    /// Parts of the path without their percent-encoding.
    path: Vec<Vec<u8>>,
}

/// Store of a prefix. Prefixes in different stores have different objects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TargetStore {
    /// `s3` for `s3a`, too: both are the same protocol.
    scheme: String,
    /// Server of an S3 store; `None`: that of the provider.
    endpoint: Option<String>,
    /// Empty for directories.
    bucket: String,
}

impl TargetPrefix {
    /// Returns the prefix of a target; `None`: the target has no URL.
    pub(super) fn of(target: &str) -> Option<Self> {
        let fields = parsed(target)?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let url = text("url")?;
        let cleaned = cleaned(url);
        let (scheme, rest) = cleaned.split_once("://").unwrap_or(("", cleaned.as_str()));
        let scheme = scheme.to_ascii_lowercase();
        let scheme = if scheme == "s3a" { "s3".to_owned() } else { scheme };
        // The rules of URLs accept both slashes for files.
        let rest = if scheme == "file" { rest.replace('\\', "/") } else { rest.to_owned() };
        let (server, path) = rest.split_once('/').unwrap_or((rest.as_str(), ""));
        // Data nodes ignore a port.
        let bucket = server.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let endpoint = text("endpoint").filter(|_| scheme == "s3").map(endpoint_of);
        Some(Self {
            url: url.trim_end_matches('/').to_owned(),
            path: path_parts(path),
            store: TargetStore { scheme, endpoint, bucket },
        })
    }

    /// Returns whether two prefixes are the same, or one is in the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.store == other.store
            && (self.path.starts_with(&other.path) || other.path.starts_with(&self.path))
    }
}

/// Returns a URL without the characters that the rules of URLs ignore.
fn cleaned(url: &str) -> String {
    let trimmed = url.trim_matches(|c: char| c <= ' ');
    trimmed.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect()
}

/// Returns the URL of a server without its default port and slashes at its end, in lower case.
fn endpoint_of(url: &str) -> String {
    let url = cleaned(url).to_ascii_lowercase();
    let url = url.trim_end_matches('/');
    let default_port = if url.starts_with("http://") { ":80" } else { ":443" };
    url.strip_suffix(default_port).unwrap_or(url).to_owned()
}

/// Returns the parts of the path of a URL. The parts `.` and `..` are resolved before the percent-encoding, as the rules of URLs
/// require, and again after it, as a file system does.
fn path_parts(path: &str) -> Vec<Vec<u8>> {
    let mut encoded: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => {
                encoded.pop();
            }
            _ => encoded.push(part),
        }
    }
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in percent_decoded(&encoded.join("/")).split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part.to_vec()),
        }
    }
    parts
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = match (first, after) {
            (b'%', [high, low, later @ ..]) => hex_byte(*high, *low).map(|byte| (byte, later)),
            _ => None,
        };
        let (byte, later) = encoded.unwrap_or((*first, after));
        decoded.push(byte);
        rest = later;
    }
    decoded
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(16 * digit(high)? + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(url: &str) -> TargetPrefix {
        TargetPrefix::of(&serde_json::json!({ "url": url }).to_string()).unwrap()
    }

    fn assert_overlap(one: &TargetPrefix, other: &TargetPrefix, expected: bool) {
        assert_eq!(one.overlaps(other), expected, "{one:?} {other:?}");
        assert_eq!(other.overlaps(one), expected, "{other:?} {one:?}");
    }

    #[test]
    fn equal_and_nested_prefixes_overlap() {
        for (one, other, expected) in [
            ("s3://b/p", "s3://b/p", true),
            ("s3://b/p", "s3://b/p/q", true),
            ("s3://b", "s3://b/p", true),
            ("s3://b/p", "s3://b/pq", false),
            ("s3://b/p", "s3://b/q/p", false),
            ("s3://b/p", "s3://c/p", false),
            ("s3://b/p", "gs://b/p", false),
            ("s3://b/p", "s3://b/P", false),
            ("file:///b/p", "s3://b/p", false),
        ] {
            assert_overlap(&prefix(one), &prefix(other), expected);
        }
    }

    #[test]
    fn different_texts_of_one_prefix_overlap() {
        for (one, other) in [
            ("s3://b/p", "s3a://b/p/"),
            ("s3://b/p", "S3://B//p//"),
            ("s3://b/p", "s3://b:9000/./p/q/.."),
            ("s3://b/p/q", "s3://b/%70/q"),
            ("s3://b/p/q", "s3://b/p%2Fq"),
            ("s3://b/p", " s3://b/p\n"),
            ("file:///x/y", "file:///x/z/../y"),
            ("file:///x/y", "file:///x/z/%2E%2e/y"),
            ("file:///x/y", "file:////x/.//y/."),
            ("file:///x/y", "FILE:///x\\y"),
            ("file:///y", "file:///../y"),
            // The last part ends in an escape that is not complete.
            ("file:///x%2", "file:///x%252"),
        ] {
            assert_overlap(&prefix(one), &prefix(other), true);
            assert_eq!(prefix(one).path, prefix(other).path, "{one} {other}");
        }
    }

    #[test]
    fn dots_are_resolved_before_the_percent_encoding() {
        // An empty part and one with an encoded slash are single parts of the URL.
        for (url, expected) in [
            ("file:///x//..", vec!["x"]),
            ("file:///x/y%2Fz/..", vec!["x"]),
            ("file:///x%2F..%2Fy", vec!["y"]),
            ("file:///", vec![]),
        ] {
            let expected: Vec<&[u8]> = expected.into_iter().map(str::as_bytes).collect();
            assert_eq!(prefix(url).path, expected, "{url}");
        }
    }

    #[test]
    fn prefixes_at_different_endpoints_do_not_overlap() {
        let at = |url: &str, endpoint: &str| {
            let target = serde_json::json!({ "url": url, "endpoint": endpoint });
            TargetPrefix::of(&target.to_string()).unwrap()
        };
        let one = at("s3://lake/t", "https://one");
        for (other, expected) in [
            (at("s3://lake/t", "https://two"), false),
            (at("s3://lake/t", "https://one:9000"), false),
            (at("s3://lake/t", "http://one"), false),
            (prefix("s3://lake/t"), false),
            (at("s3a://lake/t/daily", "HTTPS://One:443/"), true),
        ] {
            assert_overlap(&one, &other, expected);
        }
        assert_overlap(&at("s3://b", "http://h:80"), &at("s3://b", "http://h/"), true);
        // Directories have no endpoint.
        assert_overlap(&at("file:///x", "https://one"), &prefix("file:///x"), true);
    }

    #[test]
    fn url_of_a_target_ends_without_a_slash() {
        for (target, expected) in [
            (r#"{"url":"s3://b/p//"}"#, Some("s3://b/p")),
            (r#"{"region":"eu","url":"s3://b"}"#, Some("s3://b")),
            (r#"{"url":"directory/"}"#, Some("directory")),
            (r#"{"url":7}"#, None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(TargetPrefix::of(target).map(|of| of.url).as_deref(), expected, "{target}");
        }
    }
}
