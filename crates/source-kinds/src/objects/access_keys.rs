//! Keys of an S3 store from a file, with the bucket and the server that they are for (pure).
//!
//! A caller chooses the bucket, the server and the file of a source. Keys therefore name their bucket and server:
//! otherwise, a caller could read each bucket that any keys of the secret directory permit, and have requests that are
//! signed with them sent to a server of its own.

use std::path::Path;

use super::config::{Endpoint, RemoteLocation};
use crate::SourceError;

/// Value of `bucket` for all buckets.
const ANY_BUCKET: &str = "*";

/// Keys of a file.
#[derive(PartialEq, Eq)]
pub(super) struct AccessKeys {
    /// Public name of the secret.
    pub(super) id: String,
    /// The secret.
    pub(super) secret: String,
}

/// Lines of a file.
#[derive(Default)]
struct Lines {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    bucket: Option<String>,
    endpoint: Option<String>,
}

impl AccessKeys {
    /// Reads the keys for a source from lines of the form `name=value`. `file` names the text in errors, of which none
    /// contains a part of the text.
    ///
    /// # Errors
    /// [`SourceError::NotPermitted`] if the keys are for another bucket or server, [`SourceError::Unreadable`] if the text
    /// is malformed.
    pub(super) fn read(
        file: &Path,
        text: &str,
        location: &RemoteLocation,
    ) -> Result<Self, SourceError> {
        let named = |problem: String| format!("credentials_file {}: {problem}", file.display());
        let malformed = |problem: String| SourceError::Unreadable(named(problem));
        let lines = Lines::parse(text).map_err(malformed)?;
        lines.check_bucket(&location.bucket).map_err(|e| SourceError::NotPermitted(named(e)))?;
        lines
            .check_endpoint(location.endpoint.as_ref())
            .map_err(|e| SourceError::NotPermitted(named(e)))?;
        match (lines.access_key_id, lines.secret_access_key) {
            (Some(id), Some(secret)) => Ok(Self { id, secret }),
            (None, _) => Err(malformed("it has no line access_key_id=..".to_owned())),
            (_, None) => Err(malformed("it has no line secret_access_key=..".to_owned())),
        }
    }
}

impl Lines {
    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let field = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let slot = match field {
                Some(("access_key_id", _)) => &mut lines.access_key_id,
                Some(("secret_access_key", _)) => &mut lines.secret_access_key,
                Some(("bucket", _)) => &mut lines.bucket,
                Some(("endpoint", _)) => &mut lines.endpoint,
                _ => {
                    return Err(format!(
                        "line {} is none of access_key_id=.., secret_access_key=.., bucket=.. and \
                         endpoint=..",
                        number + 1
                    ));
                }
            };
            let value = field.map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty());
            if slot.is_some() || value.is_none() {
                return Err(format!("line {} has no value, or repeats one", number + 1));
            }
            *slot = value;
        }
        Ok(lines)
    }

    fn check_bucket(&self, bucket: &str) -> Result<(), String> {
        match self.bucket.as_deref() {
            Some(ANY_BUCKET) => Ok(()),
            Some(own) if own == bucket => Ok(()),
            Some(_) => Err(format!("its line bucket=.. names another bucket than {bucket:?}")),
            None => Err(format!(
                "its keys are for no bucket: add the line bucket={bucket}, or bucket={ANY_BUCKET}"
            )),
        }
    }

    fn check_endpoint(&self, endpoint: Option<&Endpoint>) -> Result<(), String> {
        // An operator may name a server without encryption, which the configuration must allow as well.
        let own = match &self.endpoint {
            Some(own) => Some(Endpoint::parse(own, true).map_err(|_| {
                "its line endpoint=.. is not a URL: write endpoint=https://host:port".to_owned()
            })?),
            None => None,
        };
        match (own, endpoint) {
            (Some(own), Some(endpoint)) if own == *endpoint => Ok(()),
            (None, None) => Ok(()),
            (None, Some(endpoint)) => Err(format!(
                "its keys are for the servers of AWS: add the line endpoint={}",
                endpoint.url
            )),
            (Some(_), Some(endpoint)) => {
                Err(format!("its line endpoint=.. names another server than {}", endpoint.url))
            }
            (Some(_), None) => {
                let problem = "its line endpoint=.. names a server, and the configuration has no \
                               endpoint: set endpoint";
                Err(problem.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path as Prefix;

    use super::super::config::{Protocol, S3Access};
    use super::*;

    const KEYS: &str = "access_key_id=a\nsecret_access_key=s3cr3t";

    fn read(text: &str, endpoint: Option<&str>) -> Result<AccessKeys, SourceError> {
        let location = RemoteLocation {
            url: "s3://mine/p".to_owned(),
            bucket: "mine".to_owned(),
            prefix: Prefix::from("p"),
            endpoint: endpoint.map(|url| Endpoint::parse(url, true).unwrap()),
            protocol: Protocol::S3(S3Access::default()),
        };
        AccessKeys::read(Path::new("/f"), text, &location)
    }

    #[test]
    fn keys_are_read_from_lines() {
        for text in [
            "access_key_id=a\nsecret_access_key=b=\nbucket=mine",
            "# x\r\n\r\nsecret_access_key = b=\r\naccess_key_id = a \r\nbucket = *\r\n",
        ] {
            let keys = read(text, None).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((keys.id.as_str(), keys.secret.as_str()), ("a", "b="));
        }
    }

    #[test]
    fn keys_are_for_their_bucket_and_server_only() {
        let aws = None;
        let own = Some("https://h:9000");
        for (more, endpoint, expected) in [
            ("bucket=mine", aws, None),
            ("bucket=*", aws, None),
            ("bucket=mine\nendpoint=https://h:9000", own, None),
            ("bucket=mine\nendpoint=https://H:9000/", own, None),
            ("bucket=mine\nendpoint=https://h", Some("https://h:443/"), None),
            ("", aws, Some("add the line bucket=mine, or bucket=*")),
            ("bucket=other", aws, Some("names another bucket than \"mine\"")),
            ("bucket=mine", own, Some("add the line endpoint=https://h:9000")),
            ("bucket=*\nendpoint=http://h:9000", own, Some("names another server than https://h:")),
            ("bucket=*\nendpoint=https://h:9001", own, Some("names another server")),
            ("bucket=*\nendpoint=https://h:9000/x", own, Some("names another server")),
            ("bucket=*\nendpoint=https://h:9000", aws, Some("has no endpoint: set endpoint")),
            ("bucket=*\nendpoint=h:9000", own, Some("write endpoint=https://host:port")),
        ] {
            let found = read(&format!("{KEYS}\n{more}"), endpoint).map(drop);
            match (found, expected) {
                (Ok(()), None) => {}
                (Err(SourceError::NotPermitted(text)), Some(expected)) => {
                    assert!(text.contains(expected) && text.contains("/f"), "{more}: {text}");
                    assert!(!text.contains("s3cr3t"), "{text}");
                }
                (found, expected) => panic!("{more}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn errors_of_keys_name_the_line_without_its_text() {
        for (text, expected) in [
            ("bucket=*", "no line access_key_id"),
            ("access_key_id=a\nbucket=*", "no line secret_access_key"),
            ("secret_access_key=s3cr3t\nbucket=*", "no line access_key_id"),
            ("access_key_id=a\ns3cr3t", "line 2 is none of access_key_id"),
            ("access_key_id=a\naccess_key_id=s3cr3t", "line 2 has no value, or repeats one"),
            ("access_key_id=", "line 1 has no value"),
        ] {
            let Err(SourceError::Unreadable(error)) = read(text, None) else { panic!("{text}") };
            assert!(error.contains(expected) && error.contains("/f"), "{text}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
