// A CSV into HubSpot contacts as a careful user writes it with HubSpot's official Node client: batch upserts of 100, one after the other.
//
//     npm install @hubspot/api-client csv-parse
//     node batching.mjs FILE BASE_URL TOKEN      (where node_modules is)
//
// The client repeats what was refused for the moment (429, 5xx) up to six times. Rows that a 207 names as failed are reported; where a call
// fails for good, its hundred rows are.

import { createReadStream } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { Client } = require("@hubspot/api-client");
const { parse } = require("csv-parse");

const BATCH = 100;
const PLANS = { "Free plan": "free", Starter: "starter", Professional: "pro", "Enterprise (annual)": "enterprise" };

function properties(row) {
  const [day, month, year] = row["Signed up"].split("/");
  return {
    email: row["Email"],
    firstname: row["First Name"],
    lastname: row["Last Name"],
    phone: row["Phone"],
    annual_spend: row["Annual spend"].replaceAll(",", ""),
    signed_up: `${year}-${month}-${day}`,
    plan: PLANS[row["Plan"]],
    newsletter: row["Newsletter"] === "yes" ? "true" : "false",
  };
}

const [path, basePath, accessToken] = process.argv.slice(2);
const batches = new Client({ accessToken, basePath, numberOfApiCallRetries: 6 }).crm.contacts.batchApi;
let written = 0;
const failed = [];

async function send(rows) {
  const inputs = rows.map((row, at) => ({
    id: row.email,
    idProperty: "email",
    properties: row,
    objectWriteTraceId: String(at),
  }));
  let answer;
  try {
    answer = await batches.upsert({ inputs });
  } catch {
    failed.push(...rows.map((row) => row.email));
    return;
  }
  written += answer.results.length;
  for (const error of answer.errors ?? []) {
    for (const trace of error.context?.objectWriteTraceId ?? []) failed.push(rows[Number(trace)].email);
  }
}

let rows = [];
for await (const row of createReadStream(path).pipe(parse({ columns: true }))) {
  rows.push(properties(row));
  if (rows.length === BATCH) {
    await send(rows);
    rows = [];
  }
}
if (rows.length > 0) await send(rows);
console.log(JSON.stringify({ written, failed }));
