//! YAML as a tree that knows its lines.
//!
//! serde alone stops at the first mistake and forgets where values stood. The check of a file wants every mistake,
//! each with its line, so the file is first read into this.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// No part of the format nests deeper than 8; beyond this it is not our file.
const DEPTH_MAX: usize = 32;

/// A value and the line on which it starts, the first being 1; 0 where it is not known.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Yaml,
}

/// What YAML can hold. A map keeps every entry, also those whose key stands twice.
#[derive(Debug, Clone)]
pub(super) enum Yaml {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, the line on which it stands, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Node,
}

impl Node {
    /// Reads one YAML document.
    pub(super) fn read(text: &str) -> Result<Self, serde_saphyr::Error> {
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            // `yes` and `on` are words here: option labels, most often.
            strict_booleans: true,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
        };
        serde_saphyr::from_str_with_options::<Spanned<Yaml>>(text, options).map(Self::from)
    }

    /// The value of a key, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Yaml::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The same without the lines. Of a key that stands twice the last one stays.
    pub(super) fn into_json(self) -> serde_json::Value {
        use serde_json::Value;
        match self.value {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => value.into(),
            Yaml::Number(value) => Value::Number(value),
            Yaml::Text(value) => value.into(),
            Yaml::List(items) => items.into_iter().map(Self::into_json).collect(),
            Yaml::Map(entries) => entries
                .into_iter()
                .map(|entry| (entry.key, entry.value.into_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

impl From<Spanned<Yaml>> for Node {
    fn from(spanned: Spanned<Yaml>) -> Self {
        Self { line: spanned.referenced.line(), value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyYaml;

        impl<'de> Visitor<'de> for AnyYaml {
            type Value = Yaml;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }
            fn visit_none<E>(self) -> Result<Yaml, E> {
                Ok(Yaml::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
                Yaml::deserialize(deserializer)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
                Ok(Yaml::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
                Ok(Yaml::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
                Ok(Yaml::Number(value.into()))
            }
            fn visit_i128<E>(self, value: i128) -> Result<Yaml, E> {
                Ok(serde_json::Number::from_i128(value).map_or_else(|| Yaml::Text(value.to_string()), Yaml::Number))
            }
            fn visit_u128<E>(self, value: u128) -> Result<Yaml, E> {
                Ok(serde_json::Number::from_u128(value).map_or_else(|| Yaml::Text(value.to_string()), Yaml::Number))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
                // JSON has no infinity; as a text it is reported as the wrong type.
                Ok(serde_json::Number::from_f64(value).map_or_else(|| Yaml::Text(value.to_string()), Yaml::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
                Ok(Yaml::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Yaml, E> {
                Ok(Yaml::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element::<Spanned<Yaml>>()? {
                    list.push(item.into());
                }
                Ok(Yaml::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Yaml, A::Error> {
                let mut map = Vec::new();
                while let Some(key) = entries.next_key::<Spanned<String>>()? {
                    let value = entries.next_value::<Spanned<Yaml>>()?.into();
                    map.push(Entry { key: key.value, line: key.referenced.line(), value });
                }
                Ok(Yaml::Map(map))
            }
        }

        deserializer.deserialize_any(AnyYaml)
    }
}
