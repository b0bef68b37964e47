//! Days and moments.

use jiff::{Timestamp, civil::Date, tz::Offset};
use serde_json::Value;

use crate::salesforce::model::datetime;

/// Salesforce keeps days from 1700 to 4000.
const YEARS: std::ops::RangeInclusive<i16> = 1700..=4000;

/// Whether bare digits are milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epoch {
    /// They are: the field holds days or moments.
    Milliseconds,
    /// They are not: in a text `20240105` is more likely a day.
    Unknown,
}

enum Read {
    Day(Date),
    Moment(Timestamp),
}

fn read(raw: &str, epoch: Epoch) -> Option<Read> {
    let raw = super::trim(raw);
    // The library reads more than these forms as a day.
    const DAY: usize = "2024-01-05".len();
    if raw.len() == DAY && raw.as_bytes().get(4) == Some(&b'-') {
        return raw.parse().ok().map(Read::Day);
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let milliseconds = raw.parse().ok().filter(|_| epoch == Epoch::Milliseconds)?;
        return Timestamp::from_millisecond(milliseconds).ok().map(Read::Moment);
    }
    datetime(&Value::from(raw)).map(Read::Moment)
}

/// The day, in UTC: `2024-01-05`. `None` for what is none, or none that Salesforce keeps.
pub(crate) fn day(raw: &str, epoch: Epoch) -> Option<String> {
    let day = match read(raw, epoch)? {
        Read::Day(day) => day,
        Read::Moment(moment) => Offset::UTC.to_datetime(moment).date(),
    };
    YEARS.contains(&day.year()).then(|| day.to_string())
}

/// The moment, in UTC and whole seconds: `2024-01-05T13:45:59Z`; a day is its midnight. `None` as for [`day`].
pub(crate) fn moment(raw: &str, epoch: Epoch) -> Option<String> {
    let moment = match read(raw, epoch)? {
        Read::Day(day) => Offset::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())).ok()?,
        Read::Moment(moment) => moment,
    };
    // Towards the past, before 1970 too.
    let whole = Timestamp::from_second(moment.as_nanosecond().div_euclid(1_000_000_000).try_into().ok()?).ok()?;
    YEARS.contains(&Offset::UTC.to_datetime(whole).year()).then(|| whole.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_in_every_form_that_either_side_shows() {
        for (raw, expect) in [
            ("2024-02-29", Some("2024-02-29")),
            (" 2024-02-29 ", Some("2024-02-29")),
            ("1709164800000", Some("2024-02-29")),
            ("-86400000", Some("1969-12-31")),
            ("0", Some("1970-01-01")),
            ("2024-02-29T23:59:59.999Z", Some("2024-02-29")),
            ("2024-02-29T23:59:59.000+0000", Some("2024-02-29")),
            // The day in UTC, whatever it is elsewhere.
            ("2024-02-29T23:00:00.000-0500", Some("2024-03-01")),
            ("1700-01-01", Some("1700-01-01")),
            ("4000-12-31", Some("4000-12-31")),
            ("1699-12-31", None),
            ("4001-01-01", None),
            ("2023-02-29", None),
            ("20240229x", None),
            ("29/02/2024", None),
            ("2024-02-29T10:00:00", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(day(raw, Epoch::Milliseconds).as_deref(), expect, "{raw}");
        }
        assert_eq!(day("20240229", Epoch::Unknown), None, "bare digits in a text are no milliseconds");
    }

    #[test]
    fn a_moment_has_whole_seconds_towards_the_past() {
        for (raw, expect) in [
            ("2024-09-09T19:25:27.000+0000", Some("2024-09-09T19:25:27Z")),
            ("2024-09-09T19:25:27.999Z", Some("2024-09-09T19:25:27Z")),
            ("2024-09-09T21:25:27+02:00", Some("2024-09-09T19:25:27Z")),
            ("1725909927999", Some("2024-09-09T19:25:27Z")),
            ("-1", Some("1969-12-31T23:59:59Z")),
            ("1969-12-31T23:59:59.9999999Z", Some("1969-12-31T23:59:59Z")),
            ("2024-09-09", Some("2024-09-09T00:00:00Z")),
            ("99999999999999999999", None),
            ("2024-09-09 noon", None),
        ] {
            assert_eq!(moment(raw, Epoch::Milliseconds).as_deref(), expect, "{raw}");
        }
    }
}
