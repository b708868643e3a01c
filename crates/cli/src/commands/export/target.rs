//! Target of an export: `--to` and `--config`.

use serde_json::{Map, Value};

use crate::exit::Failure;

/// Field of the URL of the prefix.
pub(super) const URL: &str = "url";

/// Returns the target of an export, a JSON object: the fields of a configuration, and the URL of the prefix.
pub(super) fn target(url: &str, config: Option<&str>) -> Result<String, Failure> {
    let mut fields: Map<String, Value> = match config {
        None => Map::new(),
        Some(config) => serde_json::from_str(config)
            .map_err(|error| Failure::usage(format!("--config is no JSON object: {error}")))?,
    };
    if fields.contains_key(URL) {
        return Err(Failure::usage(
            "--config has a url, and --to, too: leave it out of the configuration",
        ));
    }
    fields.insert(URL.to_owned(), url.into());
    Ok(Value::Object(fields).to_string())
}

/// Returns the URL of the prefix of a target; `None`: it has none.
pub(super) fn url_of(target: &str) -> Option<String> {
    let fields: Value = serde_json::from_str(target).ok()?;
    fields.get(URL)?.as_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Exit;

    const TO: &str = "s3://lake/flights";

    fn parsed(config: Option<&str>) -> Value {
        serde_json::from_str(&target(TO, config).unwrap()).unwrap()
    }

    #[test]
    fn target_has_the_url_and_the_configuration() {
        assert_eq!(parsed(None), json!({"url": TO}));
        let config = r#"{"endpoint": "https://s3.example.org", "region": "eu"}"#;
        let expected = json!({"url": TO, "endpoint": "https://s3.example.org", "region": "eu"});
        assert_eq!(parsed(Some(config)), expected);
        assert_eq!(url_of(&target(TO, Some(config)).unwrap()).as_deref(), Some(TO));
    }

    #[test]
    fn invalid_configurations_are_usage_errors() {
        for (config, text) in [
            (r#"{"url": "s3://other"}"#, "--to"),
            ("[]", "no JSON object"),
            ("endpoint", "no JSON object"),
            ("", "no JSON object"),
        ] {
            let failure = target(TO, Some(config)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{config}");
            assert!(failure.message.contains(text), "{failure}");
        }
    }

    #[test]
    fn target_of_a_later_release_may_have_no_url() {
        for target in ["", "{}", "[]", r#"{"url": 1}"#] {
            assert_eq!(url_of(target), None, "{target}");
        }
    }
}
