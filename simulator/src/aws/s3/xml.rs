//! The little XML that S3 speaks.

use std::fmt::Write;

use quick_xml::escape::{escape, unescape};

/// Builds a document; every text is escaped.
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn new(root: &str) -> Self {
        let mut xml = Self("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
        if root == "Error" {
            xml.0.push_str("<Error>");
        } else {
            let _ = write!(xml.0, "<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        }
        xml
    }

    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        let _ = write!(self.0, "<{name}>{}</{name}>", escape(text));
        self
    }

    pub(super) fn open(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.0, "<{name}>");
        self
    }

    pub(super) fn close(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.0, "</{name}>");
        self
    }

    pub(super) fn end(mut self, root: &str) -> String {
        self.close(root);
        self.0
    }
}

/// What is inside each `<name>…</name>`; enough for the flat documents that clients send to S3.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((inside, after)) = after.split_once(&close) else { break };
        found.push(inside);
        rest = after;
    }
    found
}

/// The text of the first `<name>`.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let inside = *elements(xml, name).first()?;
    unescape(inside).ok().map(std::borrow::Cow::into_owned)
}
