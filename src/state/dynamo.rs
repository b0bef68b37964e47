//! State in DynamoDB: one table with the string keys `pk` and `sk`.
//!
//! # Lost answers
//!
//! The SDK repeats a request whose answer was lost. When the first attempt had been carried out, the repeat finds its own condition broken: DynamoDB
//! cannot tell that apart from another writer, so `No` comes back with the item as it is now, and the item is the caller's own. That is why callers
//! make a conditional change self-identifying (owner, fence, run id) and look at the item before they believe `No`. When the SDK's attempts are spent
//! as well, the error's kind is `Unknown`. Unconditional additions may be counted twice by such a repeat.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt::{Display, Write as _},
};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{delete_item::DeleteItemError, update_item::UpdateItemError},
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use super::{
    Changed, Condition, Item, Key, Scanned, Table, Update, Value,
    memory::{check_key, check_update, corrupt, describe},
};
use crate::{
    aws::Failure,
    codes,
    error::{Error, ErrorKind, Result},
};

/// DynamoDB answers 1 MB a page; more pages than this are no state of ours.
const PAGES_MAX: usize = 1_000;

/// A DynamoDB table.
#[derive(Debug)]
pub struct DynamoTable {
    client: Client,
    table: String,
    writes: Cell<u64>,
}

impl DynamoTable {
    /// The table of this name, reached through `client`. Makes no request.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into(), writes: Cell::new(0) }
    }

    fn failed<E>(&self, what: &dyn Display, error: &SdkError<E>, repeatable: bool) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let failure = Failure::from(error);
        let message = format!("{what} in table {}: {}", self.table, failure.text);
        match failure.code.as_str() {
            "ResourceNotFoundException" => Error::invalid(codes::STATE_UNAVAILABLE, message).with_hint(format!(
                "There is no table {} in this account and region: deploy the template, or correct the table's name.",
                self.table
            )),
            // The expression or the item is ours: a type that does not fit, an item that has grown too large.
            "ValidationException" => corrupt(message),
            _ => Error::new(failure.kind(repeatable), codes::STATE_UNAVAILABLE, message),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Item>> {
        let request =
            self.client.get_item().table_name(&self.table).set_key(Some(key_attributes(key))).consistent_read(true);
        let answer = request.send().await.map_err(|error| self.failed(&describe(key), &error, true))?;
        answer.item.map(|item| decode(key, item)).transpose()
    }
}

#[async_trait(?Send)]
impl Table for DynamoTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        check_key(key)?;
        self.read(key).await
    }

    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        check_key(key)?;
        check_update(&update)?;
        let mut expression = Expression::default();
        let change = expression.change(&update);
        let condition = update.condition.as_ref().map(|condition| expression.condition(condition));
        self.writes.set(self.writes.get() + 1);
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .set_update_expression(change)
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match request.send().await {
            Ok(answer) => return Ok(Changed::Yes(decode(key, answer.attributes.unwrap_or_default())?)),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => match failed.item() {
                Some(item) => Ok(Changed::No(Some(decode(key, item.clone())?))),
                // There is none, or this is a stand-in that does not send it along.
                None => Ok(Changed::No(self.read(key).await?)),
            },
            _ => Err(self.failed(&describe(key), &error, false)),
        }
    }

    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        check_key(key)?;
        let mut expression = Expression::default();
        let condition = condition.as_ref().map(|condition| expression.condition(condition));
        self.writes.set(self.writes.get() + 1);
        let request = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key_attributes(key)))
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values());
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(self.failed(&describe(key), &error, false)),
            },
        }
    }

    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        let mut found = Vec::new();
        let mut from = None;
        for _ in 0..PAGES_MAX {
            let wanted = limit - found.len();
            if wanted == 0 {
                return Ok(found);
            }
            let request = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#pk = :pk")
                .expression_attribute_names("#pk", "pk")
                .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
                .limit(i32::try_from(wanted).unwrap_or(i32::MAX))
                .set_exclusive_start_key(from);
            let answer =
                request.send().await.map_err(|error| self.failed(&format_args!("state items {pk}"), &error, true))?;
            for item in answer.items.unwrap_or_default().into_iter().take(wanted) {
                let Some(Ok(sk)) = item.get("sk").map(AttributeValue::as_s) else {
                    return Err(corrupt(format!("a state item under {pk} has no sort key")));
                };
                let key = Key::new(pk, sk);
                let item = decode(&key, item)?;
                found.push((key, item));
            }
            from = answer.last_evaluated_key;
            if from.is_none() {
                return Ok(found);
            }
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            codes::STATE_CORRUPT,
            format!("state items {pk}: more than {PAGES_MAX} pages"),
        ))
    }

    async fn scan(&self, after: Option<&Key>) -> Result<Scanned> {
        let request = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .set_exclusive_start_key(after.map(key_attributes));
        let answer = request.send().await.map_err(|error| self.failed(&"all state items", &error, true))?;
        let key_of = |attributes: &HashMap<String, AttributeValue>| {
            let text = |name: &str| attributes.get(name).and_then(|value| value.as_s().ok());
            let key = text("pk").zip(text("sk")).map(|(pk, sk)| Key::new(pk.as_str(), sk.as_str()));
            key.ok_or_else(|| corrupt("a state item has no key".to_owned()))
        };
        let items = answer.items.unwrap_or_default().into_iter().map(|item| {
            let key = key_of(&item)?;
            let item = decode(&key, item)?;
            Ok((key, item))
        });
        let items = items.collect::<Result<_>>()?;
        Ok(Scanned { items, last: answer.last_evaluated_key.as_ref().map(key_of).transpose()? })
    }

    fn writes(&self) -> u64 {
        self.writes.get()
    }
}

/// The names and values of an expression. Every name is given an alias, because DynamoDB reserves some 570 words.
#[derive(Debug, Default)]
struct Expression {
    names: Vec<&'static str>,
    values: Vec<AttributeValue>,
}

impl Expression {
    /// The alias of a name.
    fn name(&mut self, name: &'static str) -> String {
        let at = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        format!("#a{at}")
    }

    /// The placeholder of a value.
    fn value(&mut self, value: &Value) -> String {
        self.values.push(encode(value));
        format!(":v{}", self.values.len() - 1)
    }

    /// `SET … ADD … REMOVE …`; `None` if there is nothing to change.
    fn change(&mut self, update: &Update) -> Option<String> {
        let set: Vec<_> =
            update.set.iter().map(|(name, value)| format!("{} = {}", self.name(name), self.value(value))).collect();
        let add: Vec<_> = update
            .add
            .iter()
            .map(|(name, number)| format!("{} {}", self.name(name), self.value(&Value::N(*number))))
            .collect();
        let remove: Vec<_> = update.remove.iter().map(|name| self.name(name)).collect();
        let mut text = String::new();
        for (keyword, parts) in [("SET", set), ("ADD", add), ("REMOVE", remove)] {
            if !parts.is_empty() {
                let space = if text.is_empty() { "" } else { " " };
                let _ = write!(text, "{space}{keyword} {}", parts.join(", "));
            }
        }
        (!text.is_empty()).then_some(text)
    }

    fn condition(&mut self, condition: &Condition) -> String {
        match condition {
            Condition::Absent(name) => format!("attribute_not_exists({})", self.name(name)),
            Condition::Equals(name, value) => format!("{} = {}", self.name(name), self.value(value)),
            Condition::Less(name, value) => format!("{} < {}", self.name(name), self.value(value)),
            Condition::AtMost(name, value) => format!("{} <= {}", self.name(name), self.value(value)),
            // DynamoDB has no words for "always" and "never".
            Condition::All(conditions) if conditions.is_empty() => {
                let pk = self.name("pk");
                format!("(attribute_exists({pk}) OR attribute_not_exists({pk}))")
            }
            Condition::Any(conditions) if conditions.is_empty() => {
                let pk = self.name("pk");
                format!("(attribute_exists({pk}) AND attribute_not_exists({pk}))")
            }
            Condition::All(conditions) => self.joined(conditions, " AND "),
            Condition::Any(conditions) => self.joined(conditions, " OR "),
        }
    }

    fn joined(&mut self, conditions: &[Condition], word: &str) -> String {
        match conditions {
            // DynamoDB refuses redundant parentheses.
            [one] => self.condition(one),
            several => {
                let parts: Vec<_> = several.iter().map(|condition| self.condition(condition)).collect();
                format!("({})", parts.join(word))
            }
        }
    }

    fn names(&self) -> Option<HashMap<String, String>> {
        let names = self.names.iter().enumerate();
        (!self.names.is_empty()).then(|| names.map(|(at, name)| (format!("#a{at}"), (*name).to_owned())).collect())
    }

    fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        let values = self.values.iter().enumerate();
        (!self.values.is_empty()).then(|| values.map(|(at, value)| (format!(":v{at}"), value.clone())).collect())
    }
}

fn key_attributes(key: &Key) -> HashMap<String, AttributeValue> {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key.pk.clone())),
        ("sk".to_owned(), AttributeValue::S(key.sk.clone())),
    ])
}

fn encode(value: &Value) -> AttributeValue {
    match value {
        Value::S(text) => AttributeValue::S(text.clone()),
        Value::N(number) => AttributeValue::N(number.to_string()),
    }
}

/// An item without its key attributes. Values that are neither text nor whole numbers were not written by us.
fn decode(key: &Key, attributes: HashMap<String, AttributeValue>) -> Result<Item> {
    let attributes = attributes.into_iter().filter(|(name, _)| name != "pk" && name != "sk");
    let decoded = attributes.map(|(name, value)| {
        let value = match value {
            AttributeValue::S(text) => Some(Value::S(text)),
            AttributeValue::N(number) => number.parse().ok().map(Value::N),
            _ => None,
        };
        let value =
            value.ok_or_else(|| corrupt(format!("{}: `{name}` is neither text nor a whole number", describe(key))))?;
        Ok((name, value))
    });
    decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_aliased_and_used() {
        let update = Update {
            set: vec![("status", "running".into()), ("owner", "me".into())],
            add: vec![("fence", 1)],
            remove: vec!["error"],
            condition: Some(Condition::Any(vec![
                Condition::Absent("pk"),
                Condition::All(vec![
                    Condition::Equals("owner", "me".into()),
                    Condition::Less("expires_at", Value::N(5)),
                ]),
            ])),
        };
        let mut expression = Expression::default();
        assert_eq!(expression.change(&update).unwrap(), "SET #a0 = :v0, #a1 = :v1 ADD #a2 :v2 REMOVE #a3");
        let condition = expression.condition(&update.condition.unwrap());
        assert_eq!(condition, "(attribute_not_exists(#a4) OR (#a1 = :v3 AND #a5 < :v4))");
        assert_eq!(expression.names().unwrap().len(), 6, "DynamoDB refuses names that are not used");
        assert_eq!(expression.values().unwrap().len(), 5);
    }

    #[test]
    fn a_change_of_nothing_has_no_expression() {
        let mut expression = Expression::default();
        assert_eq!(expression.change(&Update::default()), None);
        assert_eq!((expression.names(), expression.values()), (None, None), "empty maps are refused");
    }

    #[test]
    fn a_value_that_we_never_write_is_corrupt_state() {
        let item = HashMap::from([("done".to_owned(), AttributeValue::Bool(true))]);
        let error = decode(&Key::new("import", "a"), item).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("`done`"), "{error}");
    }
}
