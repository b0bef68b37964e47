//! What a credential must be allowed to do, as HubSpot calls it. Pure.
//!
//! Only a refreshed OAuth token comes with its scopes, so that what is missing can be told before the first call; other credentials are refused when they try.

use crate::record::ObjectType;

/// What is done with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading them.
    Read,
    /// Writing them.
    Write,
}

impl Access {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Objects with scopes of their own.
const OWN: [&str; 7] = ["contacts", "companies", "deals", "line_items", "products", "quotes", "leads"];

/// Objects that are seen and written by who may see and write contacts.
const OF_CONTACTS: [&str; 7] = ["notes", "calls", "emails", "meetings", "tasks", "communications", "postal_mail"];

/// The scopes of which one is needed; empty where that is not known.
pub fn needed(object: &ObjectType, access: Access) -> Vec<String> {
    let (name, word) = (object.as_str(), access.word());
    let name = match name {
        "0-1" => "contacts",
        "0-2" => "companies",
        "0-3" => "deals",
        "0-5" => "tickets",
        name => name,
    };
    match name {
        "tickets" => vec!["tickets".to_owned()],
        "line_items" | "products" => vec![format!("crm.objects.{name}.{word}"), "e-commerce".to_owned()],
        name if OWN.contains(&name) => vec![format!("crm.objects.{name}.{word}")],
        name if OF_CONTACTS.contains(&name) => vec![format!("crm.objects.contacts.{word}")],
        name if name.starts_with("2-") || name.starts_with("p_") => vec![format!("crm.objects.custom.{word}")],
        _ => Vec::new(),
    }
}

/// What of `needed` is not among the granted: the scope that is to be added. `None` where nothing is missing, or it is not known.
pub fn missing(granted: Option<&[String]>, needed: &[String]) -> Option<String> {
    let granted = granted?;
    let is_there = needed.is_empty() || needed.iter().any(|scope| granted.contains(scope));
    if is_there { None } else { needed.first().cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_that_is_missing_is_named_where_hubspot_tells_what_there_is() {
        let granted = ["oauth".to_owned(), "crm.objects.contacts.read".to_owned(), "e-commerce".to_owned()];
        let missing = |object: &str, access| missing(Some(&granted), &needed(&ObjectType(object.to_owned()), access));
        assert_eq!(missing("contacts", Access::Read), None);
        assert_eq!(missing("0-1", Access::Write).as_deref(), Some("crm.objects.contacts.write"));
        assert_eq!(missing("notes", Access::Read), None, "who may see contacts may see what was said to them");
        assert_eq!(missing("products", Access::Write), None, "the older scope does too");
        assert_eq!(missing("tickets", Access::Read).as_deref(), Some("tickets"));
        assert_eq!(missing("2-1000001", Access::Read).as_deref(), Some("crm.objects.custom.read"));
        assert_eq!(missing("something_new", Access::Write), None, "what is not known is no fault");
        assert_eq!(super::missing(None, &needed(&ObjectType("deals".to_owned()), Access::Write)), None);
    }
}
