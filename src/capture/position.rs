//! How far a capture has come, in the words of Conduit's connector.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a capture is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everything that existed at the start is being written.
    #[default]
    Snapshot,
    /// Changes are.
    Cdc,
}

/// The position as people and consumers read it.
///
/// ```json
/// {"mode":"cdc","itemId":"256","initialTimestamp":"2026-11-22T09:00:00Z","timestamp":"2026-11-22T09:30:00Z"}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Position {
    /// What is being done.
    pub mode: Mode,
    /// In a snapshot: every record up to this id is written. Afterwards: the last record looked at; empty before the first.
    pub item_id: String,
    /// HubSpot's clock when the capture began. Changes since then are captured, whatever the snapshot shows.
    pub initial_timestamp: Timestamp,
    /// Changes before this moment of HubSpot's clock are captured; absent in a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The end of the window that is being read, while one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What HubSpot's index showed late is captured up to this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trailing_timestamp: Option<Timestamp>,
}

impl Position {
    /// The position of one record of a snapshot.
    pub fn of_snapshot(id: &str, initial: Timestamp) -> Self {
        Self { item_id: id.to_owned(), initial_timestamp: initial, ..Self::default() }
    }

    /// The position of one change.
    pub fn of_change(id: &str, initial: Timestamp, at: Timestamp) -> Self {
        Self {
            mode: Mode::Cdc,
            item_id: id.to_owned(),
            initial_timestamp: initial,
            timestamp: Some(at),
            ..Self::default()
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A moment in an object's key: as text in the order of time.
pub fn compact(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_conduits_does() {
        let initial: Timestamp = "2022-10-28T14:58:27Z".parse().unwrap();
        let at: Timestamp = "2022-10-28T15:00:50Z".parse().unwrap();
        assert_eq!(
            Position::of_snapshot("256", initial).json(),
            r#"{"mode":"snapshot","itemId":"256","initialTimestamp":"2022-10-28T14:58:27Z"}"#
        );
        let change = Position::of_change("256", initial, at);
        assert_eq!(
            change.json(),
            r#"{"mode":"cdc","itemId":"256","initialTimestamp":"2022-10-28T14:58:27Z","timestamp":"2022-10-28T15:00:50Z"}"#
        );
        assert_eq!(serde_json::from_str::<Position>(&change.json()).unwrap(), change);
    }

    #[test]
    fn moments_in_keys_sort_by_time() {
        let at = |text: &str| compact(text.parse().unwrap());
        assert_eq!(at("2026-11-22T09:15:00.123Z"), "20261122T091500123Z");
        assert!(at("2026-11-22T09:15:00Z") < at("2026-11-22T09:15:00.001Z"));
    }
}
