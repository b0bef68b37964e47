//! The object types and properties that every account has. A selection: enough for imports, captures and mappings to
//! meet each kind of property that exists. SOURCES.md "Objects" and "Properties".

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A property definition, as `GET /crm/properties/{version}/{type}` lists it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PropertyDefinition {
    /// Internal name.
    pub name: String,
    /// What people see.
    pub label: String,
    /// `string`, `number`, `bool`, `date`, `datetime`, `enumeration`, `phone_number`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `text`, `textarea`, `number`, `date`, `select`, `checkbox`, `booleancheckbox`, …
    pub field_type: String,
    /// Explanation.
    pub description: String,
    /// The group it is shown in.
    pub group_name: String,
    /// Of enumerations.
    pub options: Vec<PropertyOption>,
    /// Place in the group.
    pub display_order: i64,
    /// Computed by HubSpot.
    pub calculated: bool,
    /// The options are kept elsewhere.
    pub external_options: bool,
    /// Whether it can identify records.
    pub has_unique_value: bool,
    /// Not shown.
    pub hidden: bool,
    /// Made by HubSpot.
    pub hubspot_defined: bool,
    /// Usable in forms.
    pub form_field: bool,
    /// `OWNER` where the values are owner ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referenced_object_type: Option<String>,
    /// What may be changed.
    pub modification_metadata: ModificationMetadata,
    /// Deleted, but still known.
    pub archived: bool,
}

/// What may be changed about a property.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModificationMetadata {
    /// May be deleted.
    pub archivable: bool,
    /// The definition cannot be changed.
    pub read_only_definition: bool,
    /// Its values are HubSpot's.
    pub read_only_value: bool,
}

/// One option of an enumeration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PropertyOption {
    /// What people see.
    pub label: String,
    /// What is stored; case-sensitive.
    pub value: String,
    /// Explanation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Place in the list.
    pub display_order: i64,
    /// Not offered to people, but valid.
    pub hidden: bool,
}

impl PropertyDefinition {
    /// A property of the account's own: a name, a type (`string`, `number`, `enumeration`, …) and the field type that
    /// goes with it.
    pub fn new(name: &str, kind: &str) -> Self {
        let field_type = match kind {
            "number" => "number",
            "date" | "datetime" => "date",
            "enumeration" => "select",
            "bool" => "booleancheckbox",
            "phone_number" => "phonenumber",
            _ => "text",
        };
        Self {
            name: name.to_owned(),
            label: name.to_owned(),
            kind: kind.to_owned(),
            field_type: field_type.to_owned(),
            display_order: -1,
            modification_metadata: ModificationMetadata { archivable: true, ..ModificationMetadata::default() },
            ..Self::default()
        }
    }

    /// The same, able to identify records.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.has_unique_value = true;
        self
    }

    /// The same with options whose labels are their values.
    #[must_use]
    pub fn options(mut self, values: &[&str]) -> Self {
        self.options = values.iter().zip(0..).map(|(value, at)| option(value, value, at)).collect();
        self
    }

    /// The same with room for several options.
    #[must_use]
    pub fn several(mut self) -> Self {
        self.field_type = "checkbox".to_owned();
        self
    }

    pub(crate) fn read_only(&self) -> bool {
        self.calculated || self.modification_metadata.read_only_value
    }
}

fn option(label: &str, value: &str, at: i64) -> PropertyOption {
    PropertyOption { label: label.to_owned(), value: value.to_owned(), display_order: at, ..PropertyOption::default() }
}

/// `name|label|type|fieldType|flags|options`: flags r read-only, c calculated, o owner, s stage or pipeline (options
/// kept by the pipelines). Options are `value` or `value=label`.
const COMMON: &str = "\
hs_object_id|Record ID|number|number|r|
hs_object_source|Record source|string|text|r|
hs_object_source_id|Record source ID|string|text|r|
hs_object_source_label|Record source label|string|text|r|
hs_merged_object_ids|Merged record IDs|enumeration|checkbox|re|
hubspot_owner_id|Owner|enumeration|select|o|
hs_created_by_user_id|Created by user|number|number|r|";

const CONTACTS: &str = "\
email|Email|string|text||
firstname|First Name|string|text||
lastname|Last Name|string|text||
phone|Phone Number|string|phonenumber||
mobilephone|Mobile Phone Number|string|phonenumber||
company|Company Name|string|text||
jobtitle|Job Title|string|text||
website|Website URL|string|text||
address|Street Address|string|text||
city|City|string|text||
state|State/Region|string|text||
zip|Postal Code|string|text||
country|Country/Region|string|text||
annualrevenue|Annual Revenue|string|text||
numemployees|Number of Employees|enumeration|select||1-5,5-25,25-50,50-100,100-500,500-1000,1000+
lifecyclestage|Lifecycle Stage|enumeration|radio||subscriber=Subscriber,lead=Lead,marketingqualifiedlead=Marketing Qualified Lead,salesqualifiedlead=Sales Qualified Lead,opportunity=Opportunity,customer=Customer,evangelist=Evangelist,other=Other
hs_lead_status|Lead Status|enumeration|radio||NEW=New,OPEN=Open,IN_PROGRESS=In Progress,OPEN_DEAL=Open Deal,UNQUALIFIED=Unqualified,ATTEMPTED_TO_CONTACT=Attempted to Contact,CONNECTED=Connected,BAD_TIMING=Bad Timing
hs_language|Preferred language|enumeration|select||en=English,de=German,fr=French,es=Spanish,ja=Japanese
hs_buying_role|Buying Role|enumeration|checkbox||BLOCKER=Blocker,BUDGET_HOLDER=Budget Holder,CHAMPION=Champion,DECISION_MAKER=Decision Maker,END_USER=End User,INFLUENCER=Influencer
date_of_birth|Date of birth|date|date||
closedate|Close Date|datetime|date||
hs_email_optout|Unsubscribed from all email|bool|booleancheckbox|r|true=Yes,false=No
associatedcompanyid|Primary Associated Company ID|number|number||
hubspotscore|HubSpot Score|number|calculation_score|cr|
num_notes|Number of Sales Activities|number|number|r|
hs_additional_emails|Additional email addresses|enumeration|checkbox|re|
hs_email_domain|Email Domain|string|text|r|
hs_full_name_or_email|Full name or email|string|calculation_equation|cr|
hs_all_contact_vids|All vids for a contact|enumeration|checkbox|re|
hs_is_contact|Is a contact|bool|booleancheckbox|cr|true=True,false=False
hs_is_unworked|Contact unworked|bool|calculation_equation|cr|true=True,false=False
hs_pipeline|Pipeline|enumeration|select|s|
notes_last_updated|Last Activity Date|datetime|date|r|
createdate|Create Date|datetime|date|r|
lastmodifieddate|Last Modified Date|datetime|date|r|";

const COMPANIES: &str = "\
name|Company name|string|text||
domain|Company Domain Name|string|text||
website|Website URL|string|text||
phone|Phone Number|string|phonenumber||
address|Street Address|string|text||
city|City|string|text||
state|State/Region|string|text||
zip|Postal Code|string|text||
country|Country/Region|string|text||
description|Description|string|textarea||
industry|Industry|enumeration|select||ACCOUNTING=Accounting,AIRLINES_AVIATION=Airlines/Aviation,BANKING=Banking,BIOTECHNOLOGY=Biotechnology,COMPUTER_SOFTWARE=Computer Software,CONSTRUCTION=Construction,EDUCATION_MANAGEMENT=Education Management,FOOD_PRODUCTION=Food Production,RETAIL=Retail
type|Type|enumeration|radio||PROSPECT=Prospect,PARTNER=Partner,RESELLER=Reseller,VENDOR=Vendor,OTHER=Other
lifecyclestage|Lifecycle Stage|enumeration|radio||subscriber=Subscriber,lead=Lead,marketingqualifiedlead=Marketing Qualified Lead,salesqualifiedlead=Sales Qualified Lead,opportunity=Opportunity,customer=Customer,evangelist=Evangelist,other=Other
annualrevenue|Annual Revenue|number|number||
numberofemployees|Number of Employees|number|number||
founded_year|Year Founded|string|text||
is_public|Is Public|bool|booleancheckbox||true=Yes,false=No
num_associated_contacts|Number of Associated Contacts|number|number|cr|
createdate|Create Date|datetime|date|r|
hs_lastmodifieddate|Last Modified Date|datetime|date|r|";

const DEALS: &str = "\
dealname|Deal Name|string|text||
amount|Amount|number|number||
pipeline|Pipeline|enumeration|select|s|
dealstage|Deal Stage|enumeration|radio|s|
closedate|Close Date|datetime|date||
dealtype|Deal Type|enumeration|radio||newbusiness=New Business,existingbusiness=Existing Business
description|Deal Description|string|textarea||
hs_priority|Priority|enumeration|select||low=Low,medium=Medium,high=High
deal_currency_code|Currency|enumeration|select||USD,EUR,GBP,JPY
hs_is_closed|Is Deal Closed?|bool|booleancheckbox|cr|true=True,false=False
hs_projected_amount|Projected Amount|number|calculation_equation|cr|
createdate|Create Date|datetime|date|r|
hs_lastmodifieddate|Last Modified Date|datetime|date|r|";

const TICKETS: &str = "\
subject|Ticket name|string|text||
content|Ticket description|string|textarea||
hs_pipeline|Pipeline|enumeration|select|s|
hs_pipeline_stage|Ticket status|enumeration|select|s|
hs_ticket_priority|Priority|enumeration|select||LOW=Low,MEDIUM=Medium,HIGH=High,URGENT=Urgent
hs_ticket_category|Category|enumeration|checkbox||PRODUCT_ISSUE=Product Issue,BILLING_ISSUE=Billing Issue,FEATURE_REQUEST=Feature Request,GENERAL_INQUIRY=General Inquiry
closed_date|Close date|datetime|date||
createdate|Create date|datetime|date|r|
hs_lastmodifieddate|Last modified date|datetime|date|r|";

const PRODUCTS: &str = "\
name|Name|string|text||
description|Product description|string|textarea||
price|Unit price|number|number||
hs_sku|SKU|string|text||
hs_cost_of_goods_sold|Unit cost|number|number||
hs_recurring_billing_period|Term|string|text||
createdate|Create Date|datetime|date|r|
hs_lastmodifieddate|Last Modified Date|datetime|date|r|";

const LINE_ITEMS: &str = "\
name|Name|string|text||
quantity|Quantity|number|number||
price|Unit price|number|number||
amount|Net price|number|calculation_equation|cr|
hs_sku|SKU|string|text||
hs_product_id|Product ID|number|number||
discount|Unit discount|number|number||
createdate|Create Date|datetime|date|r|
hs_lastmodifieddate|Last Modified Date|datetime|date|r|";

/// Newer and lesser objects have these only.
const GENERIC: &str = "\
hs_name|Name|string|text||
hs_title|Title|string|text||
hs_subject|Subject|string|text||
hs_body|Body|string|textarea||
hs_timestamp|Timestamp|datetime|date||";

const DATES: &str = "\
hs_createdate|Create date|datetime|date|r|
hs_lastmodifieddate|Last modified date|datetime|date|r|";

const QUOTES: &str = "\
hs_title|Quote name|string|text||
hs_expiration_date|Expiration date|date|date||
hs_status|Quote status|enumeration|select||DRAFT=Draft,APPROVAL_NOT_NEEDED=Published,PENDING_APPROVAL=Pending approval,APPROVED=Approved,REJECTED=Rejected
hs_quote_number|Quote number|string|text||
hs_quote_amount|Quote amount|number|calculation_rollup|cr|
hs_currency|Currency|enumeration|select||USD,EUR,GBP,JPY
hs_language|Quote language|enumeration|select||en=English,de=German,fr=French,es=Spanish,ja=Japanese
hs_slug|Quote path|string|text||
hs_public_url_key|Public URL key|string|text|r|
hs_comments|Comments to buyer|string|html||
hs_terms|Purchase terms|string|html||
hs_esign_enabled|Is e-signature enabled|bool|booleancheckbox||true=Yes,false=No";

const CALLS: &str = "\
hs_timestamp|Activity date|datetime|date||
hs_call_title|Call title|string|text||
hs_call_body|Call notes|string|html||
hs_call_direction|Call direction|enumeration|select||INBOUND=Inbound,OUTBOUND=Outbound
hs_call_disposition|Call outcome|enumeration|select|e|
hs_call_duration|Call duration|number|number||
hs_call_from_number|From number|string|text||
hs_call_to_number|To number|string|text||
hs_call_recording_url|Recording URL|string|text||
hs_call_status|Call status|enumeration|select||COMPLETED=Completed,BUSY=Busy,CALLING_CRM_USER=Calling CRM user,CANCELED=Canceled,CONNECTING=Connecting,FAILED=Failed,IN_PROGRESS=In progress,NO_ANSWER=No answer,QUEUED=Queued,RINGING=Ringing";

const EMAILS: &str = "\
hs_timestamp|Activity date|datetime|date||
hs_email_subject|Email subject|string|text||
hs_email_text|Email body|string|textarea||
hs_email_html|Email HTML|string|html||
hs_email_direction|Email direction|enumeration|select||EMAIL=Email,INCOMING_EMAIL=Incoming Email,FORWARDED_EMAIL=Forwarded Email
hs_email_status|Email send status|enumeration|select||BOUNCED=Bounced,FAILED=Failed,SCHEDULED=Scheduled,SENDING=Sending,SENT=Sent
hs_email_headers|Email headers|string|textarea||
hs_email_from_email|Email from address|string|text|r|
hs_email_to_email|Email to address|string|text|r|";

const MEETINGS: &str = "\
hs_timestamp|Activity date|datetime|date||
hs_meeting_title|Meeting name|string|text||
hs_meeting_body|Meeting description|string|html||
hs_internal_meeting_notes|Internal meeting notes|string|html||
hs_meeting_start_time|Meeting start time|datetime|date||
hs_meeting_end_time|Meeting end time|datetime|date||
hs_meeting_location|Meeting location|string|text||
hs_meeting_external_url|External URL|string|text||
hs_meeting_outcome|Meeting outcome|enumeration|select||SCHEDULED=Scheduled,COMPLETED=Completed,RESCHEDULED=Rescheduled,NO_SHOW=No show,CANCELED=Canceled";

const NOTES: &str = "\
hs_timestamp|Activity date|datetime|date||
hs_note_body|Note body|string|html||
hs_attachment_ids|Attached file IDs|enumeration|checkbox|e|
hs_body_preview|Body preview|string|text|r|";

const TASKS: &str = "\
hs_timestamp|Due date|datetime|date||
hs_task_subject|Task title|string|text||
hs_task_body|Notes|string|html||
hs_task_status|Task status|enumeration|select||NOT_STARTED=Not started,IN_PROGRESS=In progress,WAITING=Waiting,COMPLETED=Completed,DEFERRED=Deferred
hs_task_priority|Priority|enumeration|radio||NONE=None,LOW=Low,MEDIUM=Medium,HIGH=High
hs_task_type|Task type|enumeration|radio||TODO=To-do,EMAIL=Email,CALL=Call
hs_task_is_overdue|Task is overdue|bool|calculation_equation|cr|true=True,false=False";

const FEEDBACK: &str = "\
hs_survey_id|Survey ID|number|number||
hs_survey_name|Survey name|string|text||
hs_survey_type|Survey type|enumeration|select||CES,CSAT,NPS,CUSTOM
hs_survey_channel|Survey source|enumeration|select||EMAIL=Email,WEB=Web,CHAT=Chat
hs_content|Survey response|string|textarea||
hs_value|Rating|number|number||
hs_sentiment|Sentiment|enumeration|select||POSITIVE=Positive,NEUTRAL=Neutral,NEGATIVE=Negative
hs_response_group|Response group|string|text||
hs_submission_name|Submission name|string|text||
hs_submission_timestamp|Submission date|datetime|date||";

const LEADS: &str = "\
hs_lead_name|Lead name|string|text||
hs_lead_type|Lead type|enumeration|select||NEW_BUSINESS=New business,UPSELL=Upsell,RE_ATTEMPTING=Re-attempting
hs_lead_label|Lead label|enumeration|select||HOT=Hot,WARM=Warm,COLD=Cold";

/// `objectTypeId|plural|singular|what people see as its name`
const OTHERS: &str = "\
0-14|quotes|quote|hs_title
0-18|communications|communication|hs_name
0-19|feedback_submissions|feedback_submission|hs_submission_name
0-27|tasks|task|hs_task_subject
0-46|notes|note|hs_note_body
0-47|meetings|meeting|hs_meeting_title
0-48|calls|call|hs_call_title
0-49|emails|email|hs_email_subject
0-53|invoices|invoice|hs_name
0-69|subscriptions|subscription|hs_name
0-101|payments|payment|hs_name
0-115|users|user|hs_name
0-123|orders|order|hs_name
0-136|leads|lead|hs_lead_name
0-142|carts|cart|hs_name
0-162|services|service|hs_name
0-970|projects|project|hs_name";

/// The properties of a row of [`OTHERS`] beside the dates.
fn table(object_type_id: &str) -> &'static str {
    match object_type_id {
        "0-14" => QUOTES,
        "0-19" => FEEDBACK,
        "0-27" => TASKS,
        "0-46" => NOTES,
        "0-47" => MEETINGS,
        "0-48" => CALLS,
        "0-49" => EMAILS,
        "0-136" => LEADS,
        _ => GENERIC,
    }
}

/// What a standard object type starts with.
pub(crate) struct Standard {
    pub(crate) id: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) properties: Vec<PropertyDefinition>,
    pub(crate) created: &'static str,
    pub(crate) modified: &'static str,
    /// All of these must be set on create.
    pub(crate) required: &'static [&'static str],
    /// One of these must be set on create.
    pub(crate) any_of: &'static [&'static str],
    /// What a read returns when it names no properties.
    pub(crate) shown: &'static [&'static str],
    pub(crate) display: &'static str,
    pub(crate) group: &'static str,
}

/// The rows of a property table, and those common to all objects.
pub(crate) fn properties(table: &str, group: &str) -> Vec<PropertyDefinition> {
    table.lines().chain(COMMON.lines()).filter_map(|line| row(line, group)).collect()
}

/// The properties that custom objects are born with.
pub(crate) fn custom_properties() -> Vec<PropertyDefinition> {
    let dates =
        "hs_createdate|Object create date/time|datetime|date|r|\nhs_lastmodifieddate|Last modified|datetime|date|r|";
    properties(dates, "custom_information")
}

fn row(line: &str, group: &str) -> Option<PropertyDefinition> {
    let mut parts = line.split('|');
    let (name, label, kind, field_type) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = parts.next()?;
    let options = parts.next().unwrap_or_default();
    let flag = |wanted: char| flags.contains(wanted);
    let options = options
        .split(',')
        .filter(|one| !one.is_empty())
        .zip(0..)
        .map(|(one, at)| {
            let (value, label) = one.split_once('=').unwrap_or((one, one));
            option(label, value, at)
        })
        .collect();
    Some(PropertyDefinition {
        name: name.to_owned(),
        label: label.to_owned(),
        kind: kind.to_owned(),
        field_type: field_type.to_owned(),
        description: String::new(),
        group_name: group.to_owned(),
        options,
        display_order: -1,
        calculated: flag('c'),
        external_options: flag('o') || flag('e'),
        has_unique_value: false,
        hidden: false,
        hubspot_defined: true,
        form_field: !flag('r'),
        referenced_object_type: flag('o').then(|| "OWNER".to_owned()),
        modification_metadata: ModificationMetadata {
            archivable: true,
            read_only_definition: true,
            read_only_value: flag('r') || flag('c'),
        },
        archived: false,
    })
}

/// Every standard object type.
pub(crate) fn standard() -> Vec<Standard> {
    let base = Standard {
        id: "",
        plural: "",
        singular: "",
        properties: Vec::new(),
        created: "createdate",
        modified: "hs_lastmodifieddate",
        required: &[],
        any_of: &[],
        shown: &[],
        display: "name",
        group: "",
    };
    let mut all = vec![
        Standard {
            id: "0-1",
            plural: "contacts",
            singular: "contact",
            properties: properties(CONTACTS, "contactinformation"),
            modified: "lastmodifieddate",
            any_of: &["email", "firstname", "lastname"],
            shown: &["createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"],
            display: "email",
            group: "contactinformation",
            ..base
        },
        Standard {
            id: "0-2",
            plural: "companies",
            singular: "company",
            properties: properties(COMPANIES, "companyinformation"),
            any_of: &["name", "domain"],
            shown: &["createdate", "domain", "hs_lastmodifieddate", "hs_object_id", "name"],
            group: "companyinformation",
            ..base
        },
        Standard {
            id: "0-3",
            plural: "deals",
            singular: "deal",
            properties: properties(DEALS, "dealinformation"),
            required: &["dealname", "dealstage"],
            shown: &[
                "amount",
                "closedate",
                "createdate",
                "dealname",
                "dealstage",
                "hs_lastmodifieddate",
                "hs_object_id",
                "pipeline",
            ],
            display: "dealname",
            group: "dealinformation",
            ..base
        },
        Standard {
            id: "0-5",
            plural: "tickets",
            singular: "ticket",
            properties: properties(TICKETS, "ticketinformation"),
            required: &["subject", "hs_pipeline_stage"],
            shown: &[
                "content",
                "createdate",
                "hs_lastmodifieddate",
                "hs_object_id",
                "hs_pipeline",
                "hs_pipeline_stage",
                "hs_ticket_category",
                "hs_ticket_priority",
                "subject",
            ],
            display: "subject",
            group: "ticketinformation",
            ..base
        },
        Standard {
            id: "0-7",
            plural: "products",
            singular: "product",
            properties: properties(PRODUCTS, "productinformation"),
            shown: &["createdate", "description", "hs_lastmodifieddate", "hs_object_id", "name", "price"],
            group: "productinformation",
            ..base
        },
        Standard {
            id: "0-8",
            plural: "line_items",
            singular: "line_item",
            properties: properties(LINE_ITEMS, "lineiteminformation"),
            shown: &["amount", "createdate", "hs_lastmodifieddate", "hs_object_id", "price", "quantity"],
            group: "lineiteminformation",
            ..base
        },
    ];
    for line in OTHERS.lines() {
        let mut parts = line.split('|');
        let (Some(id), Some(plural), Some(singular), Some(display)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let engagement = matches!(id, "0-27" | "0-46" | "0-47" | "0-48" | "0-49" | "0-18");
        all.push(Standard {
            id,
            plural,
            singular,
            properties: [table(id), DATES]
                .iter()
                .flat_map(|rows| rows.lines())
                .chain(COMMON.lines())
                .filter_map(|line| row(line, "information"))
                .collect(),
            created: "hs_createdate",
            required: if engagement { &["hs_timestamp"] } else { &[] },
            shown: &["hs_createdate", "hs_lastmodifieddate", "hs_object_id"],
            display,
            group: "information",
            ..base
        });
    }
    all
}

/// A pipeline with its stages.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    pub(crate) id: &'static str,
    pub(crate) label: &'static str,
    /// Id, label, metadata.
    pub(crate) stages: &'static [(&'static str, &'static str, (&'static str, &'static str), bool)],
}

/// The pipelines of an object type.
pub(crate) fn pipelines(object_type_id: &str) -> &'static [Pipeline] {
    match object_type_id {
        "0-3" => &[
            Pipeline {
                id: "default",
                label: "Sales Pipeline",
                stages: &[
                    ("appointmentscheduled", "Appointment Scheduled", ("probability", "0.2"), false),
                    ("qualifiedtobuy", "Qualified To Buy", ("probability", "0.4"), false),
                    ("presentationscheduled", "Presentation Scheduled", ("probability", "0.6"), false),
                    ("decisionmakerboughtin", "Decision Maker Bought-In", ("probability", "0.8"), false),
                    ("contractsent", "Contract Sent", ("probability", "0.9"), false),
                    ("closedwon", "Closed Won", ("probability", "1.0"), true),
                    ("closedlost", "Closed Lost", ("probability", "0.0"), true),
                ],
            },
            Pipeline {
                id: "8001",
                label: "Renewals",
                stages: &[
                    ("80011", "Up for renewal", ("probability", "0.7"), false),
                    ("80012", "Renewed", ("probability", "1.0"), true),
                    ("80013", "Lost", ("probability", "0.0"), true),
                ],
            },
        ],
        "0-5" => &[Pipeline {
            id: "0",
            label: "Support Pipeline",
            stages: &[
                ("1", "New", ("ticketState", "OPEN"), false),
                ("2", "Waiting on contact", ("ticketState", "OPEN"), false),
                ("3", "Waiting on us", ("ticketState", "OPEN"), false),
                ("4", "Closed", ("ticketState", "CLOSED"), true),
            ],
        }],
        "0-1" | "0-2" => &[Pipeline {
            id: "contacts-lifecycle-pipeline",
            label: "Lifecycle Stage Pipeline",
            stages: &[
                ("subscriber", "Subscriber", ("state", "OPEN"), false),
                ("lead", "Lead", ("state", "OPEN"), false),
                ("marketingqualifiedlead", "Marketing Qualified Lead", ("state", "OPEN"), false),
                ("salesqualifiedlead", "Sales Qualified Lead", ("state", "OPEN"), false),
                ("opportunity", "Opportunity", ("state", "OPEN"), false),
                ("customer", "Customer", ("state", "CLOSED"), true),
            ],
        }],
        _ => &[],
    }
}

impl Pipeline {
    pub(crate) fn json(&self, at: usize) -> Value {
        let stages: Vec<Value> = self
            .stages
            .iter()
            .enumerate()
            .map(|(at, (id, label, (key, value), closed))| {
                let mut metadata = serde_json::Map::new();
                metadata.insert("isClosed".into(), closed.to_string().into());
                metadata.insert((*key).into(), (*value).into());
                json!({"label": label, "displayOrder": at, "metadata": metadata, "id": id,
                    "createdAt": "1970-01-01T00:00:00Z", "updatedAt": "1970-01-01T00:00:00Z",
                    "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT", "archived": false})
            })
            .collect();
        json!({"label": self.label, "displayOrder": at, "id": self.id, "stages": stages,
            "createdAt": "1970-01-01T00:00:00Z", "updatedAt": "1970-01-01T00:00:00Z", "archived": false})
    }
}
