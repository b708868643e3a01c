//! Messages as an earlier release knows them.

use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, Value};
use tidewater_cluster_tests::{HarnessError, Result};

use super::stored::Stored;

/// Package of the messages.
const PACKAGE: &str = "tidewater.v1";

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
