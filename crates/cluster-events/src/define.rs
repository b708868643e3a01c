//! Definition of event types as structs with their descriptions.

/// Defines structs that are events. Each has a doc line, a name, a priority, and a field for each extra column. With
/// `payload` after the priority it also has that field, its JSON payload.
macro_rules! define_event_types {
    ($(
        #[doc = $meaning:literal]
        $event:ident = $name:literal, $priority:ident $(, $payload:ident)? {
            $( #[doc = $column_meaning:literal] $column:ident: $type:ty, )*
        }
    )*) => {
        $(
            #[doc = $meaning]
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $event {
                $( #[doc = $column_meaning] pub $column: $type, )*
                $(
                    /// JSON document, or empty.
                    pub $payload: String,
                )?
            }

            impl $event {
                /// Description of the type.
                pub const TYPE: EventType = EventType {
                    name: $name,
                    priority: Priority::$priority,
                    meaning: $meaning.trim_ascii(),
                    columns: &[
                        $( ColumnInfo {
                            name: stringify!($column),
                            value_type: <$type as ColumnValue>::TYPE,
                            meaning: $column_meaning.trim_ascii(),
                        }, )*
                    ],
                };
            }

            impl Event for $event {
                fn event_type(&self) -> &str {
                    $name
                }

                $(
                    fn json_payload(&self) -> Result<String, EventError> {
                        Ok(self.$payload.clone())
                    }
                )?

                fn extra_schema(&self) -> Vec<ExtraColumn> {
                    let columns = Self::TYPE.columns.iter();
                    columns.map(|column| ExtraColumn::new(column.name, column.value_type)).collect()
                }

                fn extra_row(&self) -> Result<Vec<Value>, EventError> {
                    Ok(vec![ $( self.$column.to_value(), )* ])
                }

                fn priority(&self) -> Priority {
                    Priority::$priority
                }

                fn as_any(&self) -> &dyn Any {
                    self
                }
            }
        )*

        /// All types of this module.
        pub(crate) const ALL: &[&EventType] = &[ $( &$event::TYPE, )* ];
    };
}

pub(crate) use define_event_types;
