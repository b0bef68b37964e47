//! Numbers, as decimals: what passes through binary floating point changes.

use std::fmt;

/// Digits before or after the point, and places of an exponent, of what is read as a number: an `f64` has 309 at most.
const DIGITS_MAX: usize = 400;

/// Digits that an `f64` keeps of any number. Salesforce's numbers are `f64`s in JSON.
const DIGITS_SURE: usize = 15;

/// A decimal number without needless zeros. `-0` is `0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decimal {
    is_negative: bool,
    /// ASCII digits before the point; empty for 0.
    whole: String,
    /// ASCII digits behind it.
    fraction: String,
}

impl Decimal {
    /// Reads `-12`, `+3.50`, `.5`, `1.2E7`. Nothing that people write beside digits: what `1,234` means cannot be told.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?),
            None => (text, 0_i32),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |part: &str| part.len() <= DIGITS_MAX && part.bytes().all(|byte| byte.is_ascii_digit());
        let places = usize::try_from(exponent.unsigned_abs()).ok()?;
        if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 || places > DIGITS_MAX {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let (whole, fraction) = if exponent >= 0 {
            let at = whole.len() + places;
            let padded = format!("{all:0<at$}");
            (padded.get(..at)?.to_owned(), padded.get(at..)?.to_owned())
        } else {
            let behind = fraction.len() + places;
            let padded = format!("{all:0>behind$}");
            let at = padded.len() - behind;
            (padded.get(..at)?.to_owned(), padded.get(at..)?.to_owned())
        };
        let number = Self { is_negative, whole, fraction }.tidy();
        (number.whole.len() <= DIGITS_MAX && number.fraction.len() <= DIGITS_MAX).then_some(number)
    }

    fn tidy(mut self) -> Self {
        self.whole = self.whole.trim_start_matches('0').to_owned();
        self.fraction.truncate(self.fraction.trim_end_matches('0').len());
        self.is_negative &= !(self.whole.is_empty() && self.fraction.is_empty());
        self
    }

    /// With at most `scale` digits behind the point; halves go to the even neighbour.
    pub(crate) fn rounded(mut self, scale: usize) -> Self {
        let Some((kept, dropped)) = self.fraction.split_at_checked(scale) else { return self };
        let last = kept.bytes().last().or(self.whole.bytes().last()).unwrap_or(b'0');
        let is_odd = last % 2 == 1;
        let up = match dropped.bytes().next() {
            None => return self,
            Some(b'5') => is_odd || dropped.bytes().skip(1).any(|digit| digit != b'0'),
            Some(digit) => digit > b'5',
        };
        self.fraction = kept.to_owned();
        if up {
            let mut digits: Vec<u8> = self.whole.bytes().chain(self.fraction.bytes()).collect();
            let mut carries = true;
            for digit in digits.iter_mut().rev() {
                if *digit != b'9' {
                    *digit += 1;
                    carries = false;
                    break;
                }
                *digit = b'0';
            }
            if carries {
                digits.insert(0, b'1');
            }
            let at = digits.len() - self.fraction.len();
            self.fraction = digits.split_off(at).into_iter().map(char::from).collect();
            self.whole = digits.into_iter().map(char::from).collect();
        }
        self.tidy()
    }

    /// Digits before the point; none of 0.5.
    pub(crate) fn whole_digits(&self) -> usize {
        self.whole.len()
    }

    fn significant(&self) -> usize {
        match self.whole.is_empty() {
            true => self.fraction.trim_start_matches('0').len(),
            false => self.whole.len() + self.fraction.len(),
        }
    }

    /// As JSON carries it: whole numbers without a point.
    pub(crate) fn json(&self) -> Option<serde_json::Number> {
        let text = self.to_string();
        match text.parse::<i64>() {
            Ok(whole) if self.significant() <= DIGITS_SURE => Some(whole.into()),
            _ => serde_json::Number::from_f64(text.parse().ok()?),
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        match self.fraction.is_empty() {
            true => write!(f, "{sign}{whole}"),
            false => write!(f, "{sign}{whole}.{}", self.fraction),
        }
    }
}

/// A number as it is compared: to `scale` places behind the point where that is known, and with no more digits than an `f64` tells apart,
/// because Salesforce cannot show more. `None` for what is no number.
pub(crate) fn number(raw: &str, scale: Option<usize>) -> Option<Decimal> {
    let exact = Decimal::read(super::trim(raw))?;
    let exact = match scale {
        Some(scale) => exact.rounded(scale),
        None => exact,
    };
    if exact.significant() <= DIGITS_SURE {
        return Some(exact);
    }
    let shown: f64 = exact.to_string().parse().ok().filter(|shown: &f64| shown.is_finite())?;
    Decimal::read(&shown.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(raw: &str, scale: Option<usize>) -> Option<String> {
        number(raw, scale).map(|number| number.to_string())
    }

    #[test]
    fn one_number_has_one_form() {
        for (raw, expect) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("007", "7"),
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1.50", "1.5"),
            ("-3.140", "-3.14"),
            ("1E7", "10000000"),
            ("1.25e1", "12.5"),
            ("12e-3", "0.012"),
            (" 42\r\n", "42"),
            ("123456789012345", "123456789012345"),
            // Salesforce shows 18 digits as its binary numbers have them.
            ("123456789012345678", "123456789012345680"),
            ("1234567890123456.78", "1234567890123456.8"),
        ] {
            assert_eq!(shown(raw, None).as_deref(), Some(expect), "{raw}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_number() {
        for raw in [
            "", ".", "-", "e5", "1,234", "1 234", "$5", "5 %", "0x1F", "1e", "1e401", "1e999", "--1", "1.2.3", "NaN",
            "inf", "１",
        ] {
            assert_eq!(shown(raw, None), None, "{raw}");
        }
        assert_eq!(shown(&"9".repeat(401), None), None);
        assert_eq!(shown("0.1e-400", None), None);
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (raw, scale, expect) in [
            ("0.5", 0, "0"),
            ("1.5", 0, "2"),
            ("2.5", 0, "2"),
            ("2.50000000001", 0, "3"),
            ("-2.5", 0, "-2"),
            ("-0.4", 0, "0"),
            ("1.005", 2, "1"),
            ("1.015", 2, "1.02"),
            ("1.0049999", 2, "1"),
            ("9.995", 2, "10"),
            ("99.999", 2, "100"),
            ("0.096", 2, "0.1"),
            ("1.2", 2, "1.2"),
        ] {
            assert_eq!(shown(raw, Some(scale)).as_deref(), Some(expect), "{raw} to {scale}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_number_survives_json_and_back(
            raw in "[-+]?[0-9]{1,20}(\\.[0-9]{0,20})?([eE][-+]?[0-9]{1,2})?", scale in proptest::option::of(0_usize..8)
        ) {
            let Some(number) = number(&raw, scale) else { return Ok(()) };
            let text = number.to_string();
            proptest::prop_assert_eq!(shown(&text, scale), Some(text.clone()));
            let json = number.json().map(|json| json.to_string());
            proptest::prop_assert_eq!(json.and_then(|json| shown(&json, scale)), Some(text.clone()));
            // As the simulator, and languages without decimals, carry it.
            let float: f64 = text.parse().unwrap();
            proptest::prop_assert_eq!(shown(&serde_json::json!(float).to_string(), scale), Some(text));
        }
    }
}
