//! Every stable code: of errors that end a run, and of rows that were rejected.
//!
//! Each has a page `docs/errors/<CODE>.md`; a test holds the two lists against each other. Codes that HubSpot
//! has a name for keep HubSpot's name.

use std::fmt;

use serde::{Serialize, Serializer};

/// A stable code: upper case, never renamed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    name: &'static str,
    hint: &'static str,
}

impl Code {
    /// The code itself, for example `KEY_BLANK`.
    pub const fn as_str(self) -> &'static str {
        self.name
    }

    /// What a person can do about it, in a sentence.
    pub const fn hint(self) -> &'static str {
        self.hint
    }

    /// The code of this name, if it is one of ours.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|code| code.name == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident: $hint:expr;)*) => {
        $($(#[$doc])* pub const $name: Code = Code { name: stringify!($name), hint: $hint };)*

        /// All of them, in the order in which they are defined.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    // Configuration and credentials
    /// No configuration was named or it could not be read.
    CONFIG_MISSING: "Set HUBFERRY_CONFIG to the path of hubferry.yaml, or to s3://bucket/key, and let the function read it.";
    /// The configuration has mistakes; all of them are listed.
    CONFIG_INVALID: "Correct the listed places of hubferry.yaml; its schema is in schema/.";
    /// Secrets Manager has no such secret, or the function may not read it.
    SECRET_MISSING: "Create the secret under the name that hubferry.yaml gives, in the same account and region, and allow the function to read it.";
    /// The secret's value is not what is expected.
    SECRET_INVALID: "Store JSON: {\"access_token\":\"…\"}, or {\"client_id\":\"…\",\"client_secret\":\"…\",\"refresh_token\":\"…\"}.";
    /// HubSpot refused the credential.
    TOKEN_REFUSED: "Put a valid token into the secret; the next run reads it, nothing has to be deployed.";
    /// The credential lacks scopes.
    SCOPES_MISSING: "Grant the named scopes to the app in HubSpot, then run again.";
    // What woke us
    /// The event was not understood.
    EVENT_UNKNOWN: "Send one of the events in events/; the message says what was not understood.";
    /// The event or the configuration names an import, account or run that does not exist.
    NAME_UNKNOWN: "Use a name from hubferry.yaml, or a run id from the reports.";
    /// A capture's position belongs to another account or resource.
    NAME_TAKEN: "Give the capture another name, or forget the old position with `hubferry capture NAME --restart`.";
    // The source
    /// The object is not there any more.
    SOURCE_GONE: "Upload the file again; it was deleted before it could be read.";
    /// The object was overwritten while it was read.
    SOURCE_CHANGED: "Nothing to do: the newer object has an event of its own.";
    /// The object may not be read.
    SOURCE_FORBIDDEN: "Allow the function s3:GetObject on the bucket, and kms:Decrypt where the object is encrypted with a key of yours.";
    /// The file is not text with columns.
    SOURCE_NOT_TABULAR: "Upload CSV, tab-separated or JSON-lines text; gzip and zstd are fine, archives and spreadsheets are not.";
    /// The compressed data are damaged.
    SOURCE_DAMAGED: "Compress the file again and upload it again.";
    /// The header cannot be used.
    HEADER_INVALID: "Give every mapped column a name of its own in the first line.";
    /// The file has too many columns.
    TOO_MANY_COLUMNS: "Leave out columns that are not needed, or split the file.";
    // The mapping against the account
    /// The mapping does not fit the account or the file; all problems are listed.
    MAPPING_INVALID: "Correct the listed columns in hubferry.yaml or in the file; nothing was written.";
    /// The column of the key is not in the file.
    KEY_COLUMN_MISSING: "Add the column that holds the key, or name another key in hubferry.yaml.";
    /// The key is not a property that HubSpot can identify records by.
    KEY_NOT_UNIQUE: "Use a property with unique values as the key, or set create_properties: true to let hubferry add one of its own.";
    /// A configured column is not in the file.
    COLUMN_MISSING: "Add the column to the file, or take it out of hubferry.yaml.";
    /// Two columns are mapped to one property.
    DUPLICATE_PROPERTY: "Map each property from one column.";
    /// Two configured imports match the object equally well.
    MATCH_AMBIGUOUS: "Make one of the two match patterns more specific.";
    // The run
    /// HubSpot could not be reached, or kept failing.
    HUBSPOT_UNAVAILABLE: "Nothing is lost: the run continues where it stopped. Look at HubSpot's status page if this goes on.";
    /// HubSpot refused a call in a way that no row explains.
    HUBSPOT_REFUSED: "Look at the message; it is HubSpot's own.";
    /// HubSpot answered something that cannot be read.
    HUBSPOT_ANSWER_UNREADABLE: "Nothing is lost: the batch was sent again. Report it if this goes on.";
    /// HubSpot limits the account's calls.
    HUBSPOT_THROTTLED: "Nothing to do: the run slows down and goes on.";
    /// The account's daily calls are spent.
    DAILY_LIMIT: "Nothing to do: the run continues after the account's midnight. Raise the limit in HubSpot if this happens often.";
    /// Salesforce refused the credential, or two sessions in a row.
    SALESFORCE_LOGIN_REFUSED: "Put a valid credential into the org's secret; the next run reads it, nothing has to be deployed.";
    /// The credential may not do this in Salesforce.
    SALESFORCE_FORBIDDEN: "Grant the integration user the permission, or correct the connected app's access.";
    /// Salesforce could not be reached, or kept failing.
    SALESFORCE_UNAVAILABLE: "Nothing is lost: the run continues where it stopped. Look at Salesforce's status page if this goes on.";
    /// Salesforce refused a call in a way that no record explains.
    SALESFORCE_REFUSED: "Look at the code in the message; it is Salesforce's own.";
    /// Salesforce answered something that cannot be read.
    SALESFORCE_ANSWER_UNREADABLE: "Nothing is lost: the call was sent again. Report it if this goes on.";
    /// The org's calls of the day are spent, or the share that a run may use.
    SALESFORCE_QUOTA: "Nothing to do: the run stops and a later one continues. Look at what else uses the org's API calls if this happens often.";
    /// A field that a sync needs to tell records apart is missing, or is not as it must be.
    SYNC_SETUP: "Run `hubferry sync NAME --setup`: it says which fields are needed, and with --create makes the HubSpot one.";
    /// A run of a sync would do more than its `limits` allow. Nothing was written.
    SYNC_LIMIT: "Look at `hubferry sync NAME --plan`. If all of it is meant, raise the limit in hubferry.yaml.";
    /// A run of a sync would delete more records than its `limits` allow. Nothing was deleted.
    SYNC_DELETES: "Look at `hubferry sync NAME --plan`. If the deletions are meant, raise limits.deletes in hubferry.yaml; else restore the records where they were deleted.";
    /// The credential belongs to another Salesforce org, or HubSpot account, than the sync's links.
    SYNC_WRONG_ORG: "Put the credential of the right org into the secret, or give the sync another name: links of one org mean nothing in another.";
    /// A value cannot be written on the other side as it is.
    SYNC_VALUE: "Correct the value on the side where it stands; the field is synced when it changes.";
    /// Salesforce wants a value that HubSpot does not have.
    REQUIRED_FIELD_MISSING: "Fill the field in HubSpot, or give the pair a `placeholder` in hubferry.yaml.";
    /// There is no such review, or it cannot be resolved so.
    REVIEW_INVALID: "Look at `hubferry review list` and `hubferry review show ID`.";
    /// Too many rows were rejected: this is probably the wrong file.
    ABORT_IF_REJECTED: "Look at the rejects. Raise abort_if_rejected if the file is right.";
    /// Mode `mirror` would archive more records than the brake allows.
    MIRROR_BRAKE: "Look at the file: is it whole? If it is, raise mirror_max_archived and drop it again; no record was archived.";
    /// The file is no plan, a damaged one, or one of another account.
    PLAN_INVALID: "Make the plan again with `hubferry plan`.";
    /// What is asked for cannot be planned.
    PLAN_UNSUPPORTED: "Look at the message: it says what cannot be planned.";
    /// The run is not at its end and cannot be undone yet.
    RUN_OPEN: "Let it go on to its end (`hubferry resume`), then undo it.";
    /// The run kept no before-images.
    NO_BEFORE_IMAGES: "Only runs of imports with before_images: true, of `hubferry apply` and of `hubferry undo` can be undone.";
    /// Several invocations in a row made no progress.
    NO_PROGRESS: "Look at the last error; raise the function's time-out or memory if single batches do not fit.";
    /// Another invocation took the run over.
    FENCED: "Nothing to do: the other invocation goes on with the run.";
    /// The accounting does not add up.
    ACCOUNTING: "Report it, with the run's report; the counts in it cannot be trusted.";
    /// Rows were left without a verdict by HubSpot.
    ROWS_DEFERRED: "Drop the rejects file back: it holds the rows that are not known to be written.";
    /// Stored state cannot be read.
    STATE_CORRUPT: "Report it; the message names the item.";
    /// DynamoDB failed.
    STATE_UNAVAILABLE: "Nothing is lost: the run continues where it stopped. Check the table's name, region and permissions.";
    /// S3 failed.
    OBJECTS_UNAVAILABLE: "Nothing is lost: the run continues where it stopped. Check the bucket's permissions.";
    /// Records cannot be written in the format asked for.
    OUTPUT_FAILED: "Give the function more memory; if it goes on, choose another `format` or `compression` for the capture and report it.";
    /// A bucket refused a write or a read.
    OBJECTS_FORBIDDEN: "Allow the function this action on the bucket.";
    /// SQS or Secrets Manager failed.
    AWS_UNAVAILABLE: "Nothing is lost: the run continues where it stopped.";
    /// Nobody could be told about a run.
    NOTICE_FAILED: "Check the webhook's secret and the topic's ARN, and that the function may publish to it; the run itself is not affected.";

    // Rows: reading
    /// The row has more or fewer cells than the header.
    RAGGED_ROW: "Give the row as many cells as the header; a cell that holds the delimiter needs quotes.";
    /// A quote is opened and never closed.
    UNTERMINATED_QUOTE: "Close the quote, or double a quote that belongs to the text.";
    /// A closed quote is followed by text.
    BAD_QUOTE: "Double a quote that belongs to the text: \"5\"\" nail\".";
    /// The row is larger than HubSpot takes.
    ROW_TOO_LARGE: "Shorten the row; HubSpot takes at most 65,536 characters a property and about 1 MB a call.";
    /// The cell holds bytes that are no text in the file's encoding.
    INVALID_ENCODING: "Save the file as UTF-8, or set the import's encoding.";
    /// The cell holds a NUL or another control character that text does not have.
    CONTROL_CHARACTER: "Remove the control characters from the cell.";
    /// The line is not a JSON object.
    INVALID_JSON: "Write one JSON object a line.";
    // Rows: change records
    /// The record's operation is none of OpenCDC's.
    OPERATION_UNKNOWN: "Write create, update, delete or snapshot as the record's operation.";
    /// The record is not written as OpenCDC says.
    RECORD_MALFORMED: "Write the record as OpenCDC v1 has it: key, payload.before and payload.after are objects, base64 text or null.";
    /// The record has no key, and none can be told from it.
    RECORD_KEY_MISSING: "Give the record a key with one field, for example {\"id\":\"256\"}.";
    /// The record says that something was written, but not what.
    PAYLOAD_MISSING: "Give payload.after the record's properties; only a delete has none.";
    /// The record belongs to another resource.
    COLLECTION_FOREIGN: "Drop the record where the import of its resource finds it, or correct opencdc.collection.";
    /// It cannot be told safely which record is meant.
    RECORD_UNNAMED: "Name the record: deliver its snapshot first, capture with before: true, or put the import's key into the record's key.";
    /// HubSpot makes these records itself.
    RESOURCE_READ_ONLY: "Leave the import out: HubSpot takes these records from nobody.";
    // Rows: values
    /// The key's cell is blank.
    KEY_BLANK: "Fill in the key: without it the record cannot be identified.";
    /// No record has this key (mode update or archive).
    KEY_NOT_FOUND: "Create the record first, or use mode: upsert.";
    /// A record with this key exists already (mode create).
    KEY_EXISTS: "Leave the row out, or use mode: upsert.";
    /// Several records have this key.
    KEY_AMBIGUOUS: "Merge the records in HubSpot, or use a key that is unique.";
    /// Not one of the property's options.
    INVALID_OPTION: "Use one of the property's options, by label or internal value.";
    /// Not an e-mail address.
    INVALID_EMAIL: "Correct the address.";
    /// Not a date in the expected format.
    INVALID_DATE: "Write the date as YYYY-MM-DD, or state the column's format: { property: …, date: \"%d/%m/%Y\" }.";
    /// Not a number.
    INVALID_LONG: "Write a plain number.";
    /// Not a whole number.
    INVALID_INTEGER: "Write a whole number.";
    /// Not a yes or a no.
    INVALID_BOOLEAN: "Write true or false (or yes, no, 1, 0).";
    /// No active owner has this e-mail address, name or id.
    INVALID_OWNER: "Use the e-mail address of an active HubSpot user.";
    /// No stage of the pipeline has this name.
    INVALID_STAGE: "Use a stage of the record's pipeline, by label or id.";
    /// No pipeline has this name.
    INVALID_PIPELINE: "Use a pipeline of this object, by label or id.";
    /// Longer than HubSpot's 65,536 characters.
    VALUE_TOO_LONG: "Shorten the value to 65,536 characters.";
    /// A value HubSpot trims or refuses for white space around it.
    LEADING_TRAILING_WHITESPACE: "Remove the white space around the value.";
    /// A letter rule of the account was broken.
    INVALID_ALPHA: "Follow the property's validation rule in HubSpot.";
    /// The property does not exist.
    PROPERTY_DOESNT_EXIST: "Create the property in HubSpot, or map the column to one that exists.";
    /// The property cannot be written.
    READ_ONLY_VALUE: "Leave the column out: HubSpot computes the property.";
    /// The account requires a property that is missing.
    MISSING_REQUIRED_PROPERTY: "Fill in the property that the account requires.";
    /// The account requires a property that is missing here.
    MISSING_CONDITIONAL_REQUIRED_PROPERTY: "Fill in the property that the account requires for such records.";
    /// The record is not any more as the plan says.
    PLAN_CHANGED: "Look at the record, then make a new plan.";
    /// What the run wrote was changed since: undo leaves it alone.
    CHANGED_SINCE: "Look at the record: what it holds now is somebody's later word.";
    /// The run archived the record.
    ARCHIVED_BY_RUN: "Restore the record in HubSpot, within 90 days: its list, Actions, Restore.";
    /// Another record holds this unique value.
    CONFLICTING_UNIQUE_VALUE: "Another record has this unique value: correct the row, or merge the records in HubSpot.";
    /// The record conflicts with another one.
    CONFLICT: "Another record holds this value: correct the row, or merge the records in HubSpot.";
    /// HubSpot has no such object.
    OBJECT_NOT_FOUND: "Check the id; the record may have been deleted.";
    /// HubSpot refused the value.
    VALIDATION_ERROR: "Correct the value; the reason is HubSpot's own.";
    /// The address was deleted for privacy and may not come back.
    GDPR_BLACKLISTED_EMAIL: "The person asked to be forgotten: leave the row out.";
    /// HubSpot gave no verdict on the row, however often it was asked.
    NO_VERDICT: "The row may or may not be written: drop it back to send it again.";
    /// The association could not be made; the records themselves were written.
    ASSOCIATION_FAILED: "Check the association's label and that both records exist; the records were written.";
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::ALL;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors");
        let codes: BTreeSet<_> = ALL.iter().map(|code| code.as_str().to_owned()).collect();
        assert_eq!(codes.len(), ALL.len(), "a code is defined twice");
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pages: BTreeSet<_> = files
            .filter_map(|file| file.strip_suffix(".md").map(str::to_owned))
            .filter(|page| page != "README")
            .collect();
        let without_page: Vec<_> = codes.difference(&pages).collect();
        let without_code: Vec<_> = pages.difference(&codes).collect();
        assert!(
            without_page.is_empty() && without_code.is_empty(),
            "codes without a page: {without_page:?}; pages without a code: {without_code:?}"
        );

        let index = fs::read_to_string(folder.join("README.md")).unwrap();
        for code in &codes {
            assert!(index.contains(&format!("| [{code}]({code}.md) |")), "{code} is not in docs/errors/README.md");
            let page = fs::read_to_string(folder.join(format!("{code}.md"))).unwrap();
            assert!(page.starts_with(&format!("# {code}\n")), "{code}: title");
            for section in ["## When it happens", "## What to do", "## Example"] {
                assert!(page.contains(section), "{code}: no section {section}");
            }
            assert!(page.contains(&format!("\n    {code}: ")), "{code}: no example message");
        }
    }

    #[test]
    fn every_hint_is_a_sentence() {
        for code in ALL {
            assert!(code.hint().ends_with('.') && code.hint().len() > 10, "{code}: {}", code.hint());
        }
    }
}
