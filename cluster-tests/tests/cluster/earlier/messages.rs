//! Messages as an earlier release knows them.

use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, Value};
use tidewater_cluster_tests::{HarnessError, Result};

use super::stored::Stored;

/// Package of the messages.
const PACKAGE: &str = "tidewater.v1";

/// Fields with the number of a rule or a format.
const VERSIONS: [&str; 3] = ["rules", "eviction", "feature_level"];

/// Descriptors of a release's messages.
#[derive(Debug)]
pub(super) struct Messages(DescriptorPool);

impl Messages {
    /// Creates them from the files of a release.
    pub(super) fn new(files: FileDescriptorSet) -> Result<Self> {
        DescriptorPool::from_file_descriptor_set(files).map(Self).map_err(invalid)
    }

    /// Returns the paths of fields and values of enums that the release does not know.
    pub(super) fn unknown(&self, stored: &Stored) -> Result<Vec<String>> {
        match stored {
            Stored::Message { name, bytes } => {
                let mut unknown = Vec::new();
                collect_unknown(&self.decode(name, bytes)?, name, &mut unknown);
                Ok(unknown)
            }
            Stored::Foreign(what) => Ok(vec![what.clone()]),
        }
    }

    /// Returns the numbers of rules and formats in a message, each with its path.
    pub(super) fn versions(&self, stored: &Stored) -> Result<Vec<String>> {
        let Stored::Message { name, bytes } = stored else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        collect_versions(&self.decode(name, bytes)?, name, &mut found);
        Ok(found)
    }

    /// Returns the kind of a command or an entry; `None` of any other message.
    pub(super) fn kind(&self, stored: &Stored) -> Result<Option<String>> {
        let Stored::Message { name: name @ ("MetaCommand" | "GroupEntry"), bytes } = stored else {
            return Ok(None);
        };
        let message = self.decode(name, bytes)?;
        let mut kinds = message.fields().filter(|(field, _)| field.containing_oneof().is_some());
        Ok(kinds.next().map(|(field, _)| format!("{name}.{}", field.name())))
    }

    fn decode(&self, name: &str, bytes: &[u8]) -> Result<DynamicMessage> {
        let full = format!("{PACKAGE}.{name}");
        let descriptor = self.0.get_message_by_name(&full);
        let descriptor = descriptor.ok_or_else(|| invalid(format!("no message {full}")))?;
        DynamicMessage::decode(descriptor, bytes).map_err(invalid)
    }
}

fn collect_versions(message: &DynamicMessage, path: &str, found: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let path = format!("{path}.{}", field.name());
        match value {
            Value::U32(number) if VERSIONS.contains(&field.name()) => {
                found.push(format!("{path}={number}"));
            }
            Value::Message(inner) => collect_versions(inner, &path, found),
            _ => {}
        }
    }
}

fn collect_unknown(message: &DynamicMessage, path: &str, unknown: &mut Vec<String>) {
    unknown.extend(message.unknown_fields().map(|field| format!("{path}.#{}", field.number())));
    for (field, value) in message.fields() {
        let path = format!("{path}.{}", field.name());
        match value {
            Value::List(values) => {
                values.iter().for_each(|value| collect_of_value(&field, value, &path, unknown));
            }
            value => collect_of_value(&field, value, &path, unknown),
        }
    }
}

fn collect_of_value(field: &FieldDescriptor, value: &Value, path: &str, unknown: &mut Vec<String>) {
    match (value, field.kind()) {
        (Value::Message(message), _) => collect_unknown(message, path, unknown),
        (Value::EnumNumber(number), Kind::Enum(values)) if values.get_value(*number).is_none() => {
            unknown.push(format!("{path}={number}"));
        }
        _ => {}
    }
}

fn invalid(error: impl ToString) -> HarnessError {
    HarnessError::violated(format!("descriptors of the earlier release: {}", error.to_string()))
}
