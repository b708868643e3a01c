//! Configurations of sources: JSON objects without secrets.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parts of names of fields with a password or a key.
const SECRETS: [&str; 6] =
    ["password", "passphrase", "secret", "token", "access_key", "account_key"];

/// Parses a configuration; an error describes the problem for the user. Fields for a password or a key
/// are refused, without their values: every node stores the configuration, and commands show it.
pub(crate) fn parse<C: DeserializeOwned>(config: &Value) -> Result<C, String> {
    let Value::Object(fields) = config else {
        return Err("it must be a JSON object".to_owned());
    };
    if let Some(name) = fields.keys().find(|name| is_secret(name)) {
        return Err(format!(
            "`{name}` is not permitted, because every node stores the configuration: write it to a \
             file on the nodes, and name that file in the configuration"
        ));
    }
    serde_json::from_value(config.clone()).map_err(|error| error.to_string())
}

/// Returns whether a field has a secret itself, instead of the name of a file with it.
fn is_secret(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    !field.ends_with("_file") && SECRETS.iter().any(|secret| field.contains(secret))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        url: String,
        password_file: Option<String>,
    }

    #[test]
    fn secrets_in_a_configuration_are_refused() {
        for name in ["password", "secret_access_key", "access_key_id", "SessionToken", "secret"] {
            let error = parse::<Config>(&json!({ "url": "x", name: "s3cr3t" })).unwrap_err();
            assert!(error.contains(name) && error.contains("file on the nodes"), "{error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
        let config = parse::<Config>(&json!({ "url": "x", "password_file": "/p" })).unwrap();
        assert_eq!(config.password_file.as_deref(), Some("/p"));
    }

    #[test]
    fn configuration_is_an_object_with_known_fields() {
        for (config, expected) in [
            (json!([]), "it must be a JSON object"),
            (json!({}), "missing field `url`"),
            (json!({ "url": "x", "ulr": "y" }), "unknown field `ulr`"),
        ] {
            let error = parse::<Config>(&config).unwrap_err();
            assert!(error.contains(expected), "{config}: {error}");
        }
    }
}
