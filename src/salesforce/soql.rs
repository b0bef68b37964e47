//! The only way to make a SOQL statement. Values are escaped, names are checked, so that no value can become a part of the statement. Pure.

use std::fmt;

use jiff::{Timestamp, civil::Date};

use super::model::SalesforceId;
use crate::{Error, Result, codes};

/// Salesforce's longest statement, in characters.
pub const STATEMENT_MAX: usize = 100_000;

/// The name of an object or a field; of a field also a path to a parent's (`Account.Name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a name: letters, digits, `_`, and dots between them. `CONFIG_INVALID` for anything else.
    pub fn new(text: &str) -> Result<Self> {
        let plain = |part: &str| {
            part.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if text.len() <= 255 && text.split('.').all(plain) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(Error::invalid(codes::CONFIG_INVALID, format!("{shown:?} is not the name of a Salesforce object or field")))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value in a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Blank.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Text, quoted and escaped when it is written.
    Text(String),
    /// A record's id.
    Id(SalesforceId),
    /// A day.
    Date(Date),
    /// A moment, in whole seconds: Salesforce keeps no more.
    DateTime(Timestamp),
}

impl From<&str> for Literal {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&SalesforceId> for Literal {
    fn from(id: &SalesforceId) -> Self {
        Self::Id(id.clone())
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Id(id) => write!(f, "'{id}'"),
            Self::Date(day) => write!(f, "{day}"),
            Self::DateTime(at) => write!(f, "{}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            Self::Text(text) => {
                f.write_str("'")?;
                for letter in text.chars() {
                    match letter {
                        '\\' => f.write_str("\\\\")?,
                        '\'' => f.write_str("\\'")?,
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        '\t' => f.write_str("\\t")?,
                        '\u{8}' => f.write_str("\\b")?,
                        '\u{c}' => f.write_str("\\f")?,
                        // What is neither seen nor known to survive the way; also the line ends of other alphabets.
                        letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') => {
                            write!(f, "\\u{:04X}", u32::from(letter))?;
                        }
                        letter => write!(f, "{letter}")?,
                    }
                }
                f.write_str("'")
            }
        }
    }
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same; texts whatever their case.
    Equal,
    /// Different; blank is different from any value.
    NotEqual,
    /// Less.
    Less,
    /// Less or the same.
    AtMost,
    /// More.
    More,
    /// More or the same.
    AtLeast,
}

/// What records must be like.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A field against a value.
    Is(Name, Comparison, Literal),
    /// A field is one of several values. Nothing is one of none: the list must not be empty.
    In(Name, Vec<Literal>),
    /// All of them.
    All(Vec<Condition>),
    /// At least one of them.
    Any(Vec<Condition>),
    /// The contrary.
    Not(Box<Condition>),
}

impl Condition {
    /// The field has this value.
    pub fn equal(field: &str, value: impl Into<Literal>) -> Result<Self> {
        Ok(Self::Is(Name::new(field)?, Comparison::Equal, value.into()))
    }

    /// Compares a field.
    pub fn is(field: &str, comparison: Comparison, value: impl Into<Literal>) -> Result<Self> {
        Ok(Self::Is(Name::new(field)?, comparison, value.into()))
    }

    /// The field has one of these values. `SALESFORCE_REFUSED` for an empty list, which Salesforce calls malformed.
    pub fn one_of(field: &str, values: Vec<Literal>) -> Result<Self> {
        if values.is_empty() {
            return Err(Error::invalid(codes::SALESFORCE_REFUSED, format!("{field} is asked to be one of no values")));
        }
        Ok(Self::In(Name::new(field)?, values))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(name, comparison, value) => {
                let sign = match comparison {
                    Comparison::Equal => "=",
                    Comparison::NotEqual => "!=",
                    Comparison::Less => "<",
                    Comparison::AtMost => "<=",
                    Comparison::More => ">",
                    Comparison::AtLeast => ">=",
                };
                write!(f, "{name} {sign} {value}")
            }
            Self::In(name, values) => {
                write!(f, "{name} IN (")?;
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{value}")?;
                }
                f.write_str(")")
            }
            Self::Not(one) => write!(f, "(NOT ({one}))"),
            Self::All(all) | Self::Any(all) => {
                let joiner = if matches!(self, Self::All(_)) { " AND " } else { " OR " };
                // AND and OR side by side need parentheses: each group has its own.
                for (at, one) in all.iter().enumerate() {
                    f.write_str(if at == 0 { "(" } else { joiner })?;
                    write!(f, "{one}")?;
                }
                match (all.is_empty(), self) {
                    (false, _) => f.write_str(")"),
                    (true, Self::All(_)) => f.write_str("(Id != null)"),
                    (true, _) => f.write_str("(Id = null)"),
                }
            }
        }
    }
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    object: Name,
    fields: Vec<Name>,
    filter: Vec<Condition>,
    order: Vec<Name>,
    limit: Option<u32>,
}

impl Select {
    /// `Id` of the records of an object.
    pub fn from(object: &str) -> Result<Self> {
        let object = Name::new(object)?;
        Ok(Self { object, fields: vec![Name("Id".to_owned())], filter: Vec::new(), order: Vec::new(), limit: None })
    }

    /// More fields; each is selected once, whatever the case of its name.
    pub fn fields<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        for field in fields {
            let name = Name::new(field)?;
            if !self.fields.iter().any(|known| known.as_str().eq_ignore_ascii_case(name.as_str())) {
                self.fields.push(name);
            }
        }
        Ok(self)
    }

    /// One more condition that must hold.
    #[must_use]
    pub fn and(mut self, condition: Condition) -> Self {
        self.filter.push(condition);
        self
    }

    /// Ordered by these, ascending.
    pub fn order_by<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        self.order = fields.into_iter().map(Name::new).collect::<Result<_>>()?;
        Ok(self)
    }

    /// At most so many records.
    #[must_use]
    pub fn limit(mut self, most: u32) -> Self {
        self.limit = Some(most);
        self
    }

    /// The object.
    pub fn object(&self) -> &Name {
        &self.object
    }

    /// What is selected.
    pub fn selected(&self) -> &[Name] {
        &self.fields
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, names: &[Name]| {
            for (at, name) in names.iter().enumerate() {
                if at > 0 {
                    f.write_str(",")?;
                }
                write!(f, "{name}")?;
            }
            Ok(())
        };
        f.write_str("SELECT ")?;
        join(f, &self.fields)?;
        write!(f, " FROM {}", self.object)?;
        match self.filter.as_slice() {
            [] => {}
            [one] => write!(f, " WHERE {one}")?,
            all => write!(f, " WHERE {}", Condition::All(all.to_vec()))?,
        }
        if !self.order.is_empty() {
            f.write_str(" ORDER BY ")?;
            join(f, &self.order)?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_written_as_salesforce_reads_it() {
        let at: Timestamp = "2026-03-02T09:00:00.75Z".parse().unwrap();
        let select = Select::from("Contact")
            .unwrap()
            .fields(["Email", "email", "Account.Name"])
            .unwrap()
            .and(Condition::equal("Email", "o'brien\\@x.com\n").unwrap())
            .and(Condition::Any(vec![
                Condition::is("SystemModstamp", Comparison::AtLeast, Literal::DateTime(at)).unwrap(),
                Condition::All(vec![
                    Condition::equal("IsDeleted", Literal::Bool(false)).unwrap(),
                    Condition::Not(Box::new(Condition::equal("Phone", Literal::Null).unwrap())),
                ]),
            ]))
            .order_by(["SystemModstamp", "Id"])
            .unwrap()
            .limit(10);
        assert_eq!(
            select.to_string(),
            "SELECT Id,Email,Account.Name FROM Contact WHERE (Email = 'o\\'brien\\\\@x.com\\n' AND (\
             SystemModstamp >= 2026-03-02T09:00:00Z OR (IsDeleted = false AND (NOT (Phone = null))))) \
             ORDER BY SystemModstamp,Id LIMIT 10"
        );
    }

    #[test]
    fn what_is_no_name_does_not_get_into_a_statement() {
        for bad in ["", "A B", "Email'", "Id FROM User", "1x", ".Id", "Account.", "A..B", "Nämé", "a;b", "COUNT()"] {
            assert_eq!(Name::new(bad).unwrap_err().code(), codes::CONFIG_INVALID, "{bad}");
        }
        for good in ["Id", "Account.Name", "Ext__c", "_x", "Parent__r.Owner.Name"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        assert!(Condition::one_of("Id", Vec::new()).is_err());
    }
}
