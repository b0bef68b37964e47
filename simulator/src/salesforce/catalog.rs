//! Objects and their fields, as describe tells them and as writes are checked by them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// A record's own id.
    Id,
    /// Another record's id.
    Reference,
    /// One line of text.
    String,
    /// Several lines of text.
    TextArea,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A web address.
    Url,
    /// One of a list.
    Picklist,
    /// Several of a list, `;` between them.
    MultiPicklist,
    /// Yes or no; never null.
    Boolean,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// An amount of money.
    Currency,
    /// A percentage.
    Percent,
    /// A day.
    Date,
    /// A moment, in whole seconds.
    DateTime,
    /// A compound address: read-only.
    Address,
}

impl FieldType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Reference => "reference",
            Self::String => "string",
            Self::TextArea => "textarea",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Url => "url",
            Self::Picklist => "picklist",
            Self::MultiPicklist => "multipicklist",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Double => "double",
            Self::Currency => "currency",
            Self::Percent => "percent",
            Self::Date => "date",
            Self::DateTime => "datetime",
            Self::Address => "address",
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Currency | Self::Percent)
    }

    pub(crate) fn is_text(self) -> bool {
        !self.is_number() && !matches!(self, Self::Boolean | Self::Date | Self::DateTime | Self::Address)
    }

    fn soap(self) -> &'static str {
        match self {
            Self::Id | Self::Reference => "tns:ID",
            Self::Boolean => "xsd:boolean",
            Self::Int => "xsd:int",
            Self::Double | Self::Currency | Self::Percent => "xsd:double",
            Self::Date => "xsd:date",
            Self::DateTime => "xsd:dateTime",
            Self::Address => "urn:address",
            _ => "xsd:string",
        }
    }
}

/// A field's definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// API name.
    pub name: String,
    /// What people see.
    pub label: String,
    /// What it holds.
    pub kind: FieldType,
    /// Characters, for texts.
    pub length: usize,
    /// Digits before and after the point, for numbers.
    pub precision: u32,
    /// Digits after the point, for numbers.
    pub scale: u32,
    /// May be null.
    pub nillable: bool,
    /// May be given when a record is created.
    pub createable: bool,
    /// May be changed.
    pub updateable: bool,
    /// Filled in when a record is created without it.
    pub default: Option<String>,
    /// Can be used to upsert by.
    pub external_id: bool,
    /// No two live records have the same value.
    pub unique: bool,
    /// Unique values differ by case.
    pub case_sensitive: bool,
    /// Values of a picklist, the active ones.
    pub picklist: Vec<String>,
    /// Values of a picklist that may not be chosen any more.
    pub inactive: Vec<String>,
    /// Other values are refused.
    pub restricted: bool,
    /// Objects that a reference may point to.
    pub reference_to: Vec<String>,
    /// Name under which the referenced record is reached in queries.
    pub relationship: Option<String>,
    /// The compound field that it is a part of.
    pub compound: Option<String>,
}

impl Field {
    /// A field of this type that may be written and may be null.
    pub fn new(name: &str, kind: FieldType) -> Self {
        Self {
            name: name.to_owned(),
            label: label(name),
            kind,
            length: 0,
            precision: 0,
            scale: 0,
            nillable: kind != FieldType::Boolean,
            createable: true,
            updateable: true,
            default: (kind == FieldType::Boolean).then(|| "false".to_owned()),
            external_id: false,
            unique: false,
            case_sensitive: false,
            picklist: Vec::new(),
            inactive: Vec::new(),
            restricted: false,
            reference_to: Vec::new(),
            relationship: None,
            compound: None,
        }
    }

    /// A line of text of so many characters at most.
    pub fn text(name: &str, length: usize) -> Self {
        Self { length, ..Self::new(name, FieldType::String) }
    }

    /// A number.
    pub fn number(name: &str, kind: FieldType, precision: u32, scale: u32) -> Self {
        Self { precision, scale, ..Self::new(name, kind) }
    }

    /// One of these values.
    pub fn picklist(name: &str, values: &[&str], restricted: bool) -> Self {
        let picklist = values.iter().map(|value| (*value).to_owned()).collect();
        Self { picklist, restricted, length: 255, ..Self::new(name, FieldType::Picklist) }
    }

    /// A reference to a record of one of these types.
    pub fn reference(name: &str, to: &[&str], relationship: &str) -> Self {
        let reference_to = to.iter().map(|value| (*value).to_owned()).collect();
        let relationship = Some(relationship.to_owned());
        Self { reference_to, relationship, length: 18, ..Self::new(name, FieldType::Reference) }
    }

    /// Makes it an external id.
    #[must_use]
    pub fn external_id(mut self, unique: bool) -> Self {
        self.external_id = true;
        self.unique = unique;
        self
    }

    /// May not be null.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.nillable = false;
        self
    }

    /// May only be read.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.createable = false;
        self.updateable = false;
        self
    }

    fn part_of(mut self, compound: &str) -> Self {
        self.compound = Some(compound.to_owned());
        self
    }

    fn labelled(mut self, label: &str) -> Self {
        self.label = label.to_owned();
        self
    }

    pub(crate) fn describe(&self, can_write: bool) -> Value {
        let values: Vec<Value> = (self.picklist.iter().map(|value| (value, true)))
            .chain(self.inactive.iter().map(|value| (value, false)))
            .map(|(value, active)| {
                json!({"active": active, "defaultValue": self.default.as_deref() == Some(value), "label": value,
                    "validFor": null, "value": value})
            })
            .collect();
        json!({
            "aggregatable": true, "autoNumber": false, "byteLength": self.length * 3, "calculated": false,
            "cascadeDelete": false, "caseSensitive": self.case_sensitive, "compoundFieldName": self.compound,
            "controllerName": null, "createable": self.createable && can_write, "custom": self.name.ends_with("__c"),
            "defaultedOnCreate": self.default.is_some() || self.name == "OwnerId", "defaultValue": null,
            "dependentPicklist": false, "digits": 0, "externalId": self.external_id,
            "filterable": self.kind != FieldType::Address, "groupable": true, "idLookup": self.external_id || self.kind == FieldType::Id,
            "label": self.label, "length": self.length, "name": self.name, "nillable": self.nillable,
            "permissionable": self.nillable, "picklistValues": values, "precision": self.precision,
            "referenceTo": self.reference_to, "relationshipName": self.relationship,
            "restrictedPicklist": self.restricted, "scale": self.scale, "soapType": self.kind.soap(),
            "sortable": self.kind != FieldType::Address, "type": self.kind.name(), "unique": self.unique,
            "updateable": self.updateable && can_write,
        })
    }
}

/// `FirstName` and `Lead_Score__c` as people read them.
fn label(name: &str) -> String {
    let name = name.trim_end_matches("__c").replace('_', " ");
    let mut text = String::new();
    let mut before = ' ';
    for letter in name.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            text.push(' ');
        }
        text.push(letter);
        before = letter;
    }
    text
}

/// An object's definition.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) fields: Vec<Field>,
}

fn system() -> Vec<Field> {
    use FieldType::{Boolean, DateTime};
    vec![
        Field { length: 18, nillable: false, ..Field::new("Id", FieldType::Id) }.read_only(),
        Field::new("IsDeleted", Boolean).read_only(),
        Field::reference("OwnerId", &["User"], "Owner").required(),
        Field::new("CreatedDate", DateTime).required().read_only(),
        Field::reference("CreatedById", &["User"], "CreatedBy").required().read_only(),
        Field::new("LastModifiedDate", DateTime).required().read_only(),
        Field::reference("LastModifiedById", &["User"], "LastModifiedBy").required().read_only(),
        Field::new("SystemModstamp", DateTime).required().read_only(),
    ]
}

fn person() -> Vec<Field> {
    vec![
        Field::picklist("Salutation", &["Mr.", "Ms.", "Mrs.", "Dr.", "Prof."], false).part_of("Name"),
        Field::text("FirstName", 40).part_of("Name"),
        Field::text("LastName", 80).required().part_of("Name"),
        Field::text("Name", 121).labelled("Full Name").required().read_only(),
        Field { length: 80, ..Field::new("Email", FieldType::Email) },
        Field { length: 40, ..Field::new("Phone", FieldType::Phone) },
        Field { length: 40, ..Field::new("MobilePhone", FieldType::Phone) },
        Field::text("Title", 128),
        Field { length: 32_000, ..Field::new("Description", FieldType::TextArea) },
        Field::picklist("LeadSource", &["Web", "Phone Inquiry", "Partner Referral", "Other"], false),
        Field::new("HasOptedOutOfEmail", FieldType::Boolean),
    ]
}

fn address(prefix: &str) -> Vec<Field> {
    let compound = if prefix.is_empty() { "Address".to_owned() } else { format!("{prefix}Address") };
    let part = |name: &str, length| Field::text(&format!("{prefix}{name}"), length).part_of(&compound);
    vec![
        part("Street", 255),
        part("City", 40),
        part("State", 80),
        part("PostalCode", 20),
        part("Country", 80),
        Field::new(&compound, FieldType::Address).read_only(),
    ]
}

/// The standard objects.
pub(crate) fn standard(person_accounts: bool) -> Vec<Kind> {
    let kind = |name: &str, prefix: &str, parts: Vec<Vec<Field>>| Kind {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        fields: system().into_iter().chain(parts.into_iter().flatten()).collect(),
    };
    let merged = |object: &str| vec![Field::reference("MasterRecordId", &[object], "MasterRecord").read_only()];
    let url = |name: &str| Field { length: 255, ..Field::new(name, FieldType::Url) };
    let industry = Field::picklist("Industry", &["Agriculture", "Banking", "Education", "Energy", "Technology"], false);
    let stages = ["Prospecting", "Qualification", "Negotiation/Review", "Closed Won", "Closed Lost"];
    let mut contact = vec![
        Field::reference("AccountId", &["Account"], "Account"),
        Field::reference("ReportsToId", &["Contact"], "ReportsTo"),
        Field::text("Department", 80),
        Field::new("Birthdate", FieldType::Date),
        Field::new("LastActivityDate", FieldType::Date).read_only(),
    ];
    if person_accounts {
        contact.push(Field::new("IsPersonAccount", FieldType::Boolean).read_only());
    }
    vec![
        kind("Contact", "003", vec![person(), contact, address("Mailing"), merged("Contact")]),
        kind(
            "Account",
            "001",
            vec![
                vec![
                    Field::text("Name", 255).labelled("Account Name").required(),
                    url("Website"),
                    Field { length: 40, ..Field::new("Phone", FieldType::Phone) },
                    industry.clone(),
                    Field::number("AnnualRevenue", FieldType::Currency, 18, 0),
                    Field::number("NumberOfEmployees", FieldType::Int, 8, 0).labelled("Employees"),
                    Field { length: 32_000, ..Field::new("Description", FieldType::TextArea) },
                    Field::reference("ParentId", &["Account"], "Parent"),
                ],
                address("Billing"),
                merged("Account"),
            ],
        ),
        kind(
            "Lead",
            "00Q",
            vec![
                person(),
                vec![
                    Field::text("Company", 255).required(),
                    url("Website"),
                    industry,
                    Field {
                        default: Some("Open - Not Contacted".to_owned()),
                        ..Field::picklist("Status", &["Open - Not Contacted", "Working - Contacted", "Closed"], false)
                    }
                    .required(),
                    Field::new("IsConverted", FieldType::Boolean).read_only(),
                    Field::reference("ConvertedContactId", &["Contact"], "ConvertedContact").read_only(),
                    Field::reference("ConvertedAccountId", &["Account"], "ConvertedAccount").read_only(),
                ],
                address(""),
                merged("Lead"),
            ],
        ),
        kind(
            "Opportunity",
            "006",
            vec![vec![
                Field::text("Name", 120).required(),
                Field::reference("AccountId", &["Account"], "Account"),
                Field::picklist("StageName", &stages, false).required().labelled("Stage"),
                Field::new("CloseDate", FieldType::Date).required(),
                Field::number("Amount", FieldType::Currency, 18, 2),
                Field::number("Probability", FieldType::Percent, 3, 0),
                Field { length: 32_000, ..Field::new("Description", FieldType::TextArea) },
            ]],
        ),
        kind(
            "User",
            "005",
            vec![vec![
                Field::text("Username", 80).required(),
                Field::text("FirstName", 40),
                Field::text("LastName", 80).required(),
                Field::text("Name", 121).read_only(),
                Field { length: 128, ..Field::new("Email", FieldType::Email) }.required(),
                Field { default: Some("true".to_owned()), ..Field::new("IsActive", FieldType::Boolean) },
            ]],
        ),
    ]
}

/// A custom object with its name and its own fields.
pub(crate) fn custom(name: &str, number: usize, fields: &[Field]) -> Kind {
    let mut all = system();
    all.push(Field::text("Name", 80).required());
    all.extend(fields.iter().cloned());
    Kind { name: name.to_owned(), prefix: format!("a{number:02}"), fields: all }
}
